"""Arithmetic word problems in words: the embedded twin of ReFT's data sets (GSM8K, SVAMP).

    Ann has three red sevens. She finds four more. She gives five to Ben. How many sevens has Ann?
    chain    3 + 4 = 7; 7 - 5 = 2
    program  def solution():
                 a = 3 + 4
                 b = a - 5
                 return b

A story is a start and `num_steps` changes; a sentence about somebody else's things changes nothing.
"""

from dataclasses import dataclass

import numpy as np

from tasks.data.scenes import CATEGORIES, INKS

PEOPLE = {"Ann": "She", "Eva": "She", "Ben": "He", "Tom": "He"}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST = 99  # no total is above


@dataclass(frozen=True)
class Story:
    """A problem, its operations from left to right and the number that is the answer."""

    text: str
    operations: tuple[tuple[int, str, int, int], ...]  # left, operator, right, result
    answer: int

    @property
    def chain(self) -> str:
        """The worked solution: '3 + 4 = 7; 7 - 5 = 2'."""
        return "; ".join(f"{left} {sign} {right} = {result}" for left, sign, right, result in self.operations)

    @property
    def program(self) -> str:
        """The same as a Python function `solution`."""
        lines, last = [], None
        for name, (left, sign, right, _) in zip("abcdefgh", self.operations, strict=False):
            lines.append(f"    {name} = {last or left} {sign} {right}")
            last = name
        return "\n".join(["def solution():", *lines, f"    return {last}"])


def _changes(total: int) -> list[str]:
    """The kinds of change that keep a total in 0..MOST."""
    kinds = ["find", "give"] * 2 + (["double"] if total * 2 <= MOST else []) + (["half"] if total % 2 == 0 else [])
    return [k for k in kinds if (k != "give" or total > 0) and (k != "find" or total + 9 <= MOST)]


def _change(rng: np.random.Generator, total: int, other: str) -> tuple[str, tuple[int, str, int, int]]:
    """What happens next, and its operation."""
    kind = str(rng.choice(_changes(total)))
    if kind == "find":
        num = int(rng.integers(1, 10))
        return f"finds {NUMBERS[num]} more", (total, "+", num, total + num)
    if kind == "give":
        num = int(rng.integers(1, min(9, total) + 1))
        return f"gives {NUMBERS[num]} to {other}", (total, "-", num, total - num)
    if kind == "double":
        return "gets as many again", (total, "*", 2, total * 2)
    return f"gives half to {other}", (total, "//", 2, total // 2)


def story(rng: np.random.Generator, num_steps: int) -> Story:
    """A story with `num_steps` operations (1..8)."""
    who, other = map(str, rng.choice(list(PEOPLE), 2, replace=False))
    things, others = (f"{digit}s" if digit != "six" else "sixes" for digit in rng.choice(CATEGORIES, 2, replace=False))
    ink, ink_of_other = map(str, rng.choice(list(INKS), 2))
    total, operations = int(rng.integers(1, 10)), []
    sentences = [f"{who} has {NUMBERS[total]} {ink} {things}."]
    if rng.random() < 1 / 4:
        boxes = int(rng.integers(2, 6))
        sentences = [f"{who} has {NUMBERS[boxes]} boxes of {NUMBERS[total]} {ink} {things}."]
        operations.append((boxes, "*", total, boxes * total))
        total *= boxes
    while len(operations) < num_steps:
        told, operation = _change(rng, total, other)
        sentences.append(f"{PEOPLE[who]} {told}.")
        operations.append(operation)
        total = operation[-1]
    if rng.random() < 1 / 3:
        aside = f"{other} has {NUMBERS[rng.integers(1, 10)]} {ink_of_other} {others}."
        sentences.insert(int(rng.integers(0, len(sentences) + 1)), aside)
    return Story(" ".join([*sentences, f"How many {things} has {who}?"]), tuple(operations), total)
