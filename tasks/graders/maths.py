"""Answers that are a number or a letter of multiple choice, after a chain of thought (ReFT, arXiv 2401.08967).

    <think>3 + 4 = 7; 7 - 5 = 2</think><answer>2</answer>          form `tags`
    3 + 4 = 7 and 7 - 5 = 2. Therefore, the answer is: 2.          form `sentence`; '#### 2' (GSM8K) too

What is stated is read as `tasks.data.numbers` reads the gold answer, so that '1,234', '$18' and '18 dollars' count on
both sides; ReFT strips them from the gold answer only. In the form `sentence` the last such line counts, and it must be
closed by a full stop or the end of its line: what a token limit cut off is no answer. Whether a completion ended its
turn is not asked beyond that: an answer that is closed counts, whatever was cut off after it.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from tasks.data.numbers import DIGITS, LEAST_DIGITS, Quantity, parse_number
from tasks.graders.frame import MAX_CHARACTERS, Failure, Malformed, frame, unframe
from tasks.graders.labels import CHOICE

Form = Literal["tags", "sentence"]
LAST = "Therefore, the answer is:"
MARK = re.compile(r"Therefore, the answer is:|####")
VALUE = rf"[-+]?{DIGITS}(?>(?:\.[0-9]++)?)"
SIGN = r"\s?(\+|-|\*|/|//|(?<=\s)x(?=\s)|\u00d7|\u00f7)\s?"
WITHIN = r"(?<![\w.,:/*+\u00d7\u00f7^-])(?<![0-9*/+x\u00d7\u00f7^-] )(?<![0-9], )"  # not within a longer expression
BEYOND = r"(?![0-9.,:]*[0-9]|\s?[-+*/x\u00d7\u00f7^%]|\s(?:and\s)?[0-9])"
EQUATION = re.compile(rf"{WITHIN}({VALUE}){SIGN}({VALUE})\s?=\s?\$?({VALUE}){BEYOND}", re.ASCII)
ROUNDING = 0.01  # an equation of a chain may be rounded more coarsely than it is written: 0.333 * 3 = 1
SLIP = 1e-9  # in units of the last decimal: 0.125 - 0.12 is a little more than 0.005


@dataclass(frozen=True)
class Stated:
    """The text of the answer and of the thinking before it. With a `failure` the answer is None; `well_formed` earns
    the format reward.
    """

    answer: str | None = None
    thought: str = ""
    failure: Failure | None = None
    well_formed: bool = False


def parse_answer(completion: str, form: Form) -> Stated:
    """What a completion states. Never raises on a string; linear in the text."""
    try:
        return _tagged(completion) if form == "tags" else _said(completion)
    except Malformed as error:
        return Stated(failure=error.failure)


def format_answer(answer: str, thought: str, form: Form) -> str:
    """The text that `parse_answer` reads back as this answer; ValueError where it could not be."""
    text = frame(answer, thought) if form == "tags" else f"{thought}\n{LAST} {answer}.".lstrip()
    parsed = parse_answer(text, form)
    if not parsed.well_formed or parsed.answer != answer:
        raise ValueError(
            f"not a readable answer ({parsed.failure or 'bad_format'}): {text[:200]!r}; "
            f"give an answer of one line, and a thought without tags, {LAST!r} and '####'"
        )
    return text


def is_choice(gold: str) -> bool:
    """Whether a gold answer is a letter of multiple choice."""
    return CHOICE.fullmatch(gold.strip()) is not None


def same_number(stated: Quantity, gold: Quantity, absolute: float, relative: float) -> bool:
    """Within `absolute` of a whole gold number, which is counted; within the share `relative` of any other, which is
    measured. An absolute tolerance alone, as ReFT's 0.01, takes 0.03 for 0.036 and refuses 48,680.8 for 48,680.77.
    What is measured is met too where one of the two is the other, rounded; but by nothing else where `relative` is 0.
    Of two percentages one is not taken for a share: 0.5% is not 50%.
    """
    if stated.percent and gold.percent:
        return _near(stated, gold, absolute, relative)
    return any(_near(s, g, absolute, relative) for s in stated.readings for g in gold.readings)


def wrong_steps(thought: str) -> int:
    """How many equations 'a + b = c' of a chain do not hold. Only two numbers and one operation are checked; what is
    part of a longer expression is not.
    """
    return sum(not _holds(*found.groups()) for found in EQUATION.finditer(thought[:MAX_CHARACTERS]))


def _tagged(completion: str) -> Stated:
    framed = unframe(completion)
    if not framed.content:
        raise Malformed(Failure.EMPTY_ANSWER)
    return Stated(framed.content, completion.partition("<answer>")[0], well_formed=framed.whole)


def _said(completion: str) -> Stated:
    if len(completion) > MAX_CHARACTERS:
        raise Malformed(Failure.TOO_LONG)
    *_, last = [None, *MARK.finditer(completion)]
    if last is None:
        raise Malformed(Failure.NO_ANSWER)
    line, end, rest = completion[last.end() :].partition("\n")
    answer = line.strip()
    if not (end or answer.endswith(".")):
        raise Malformed(Failure.UNCLOSED_ANSWER if answer else Failure.EMPTY_ANSWER)
    answer = answer.removesuffix(".").rstrip()
    if not answer:
        raise Malformed(Failure.EMPTY_ANSWER)
    return Stated(answer, completion[: last.start()], well_formed=not rest.strip())


def _near(stated: Quantity, gold: Quantity, absolute: float, relative: float) -> bool:
    apart = abs(stated.value - gold.value)
    if gold.value == int(gold.value):
        return apart <= absolute
    return apart <= relative * abs(gold.value) or (relative > 0 and (_rounds(stated, gold) or _rounds(gold, stated)))


def _rounds(one: Quantity, to: Quantity) -> bool:
    """Whether `to` is `one`, rounded to the decimals that it is written with: what has fewer would have to be equal. A
    tie may go either way: half up, half to even, or as floats have it (Python's 24.095 is 24.09).
    """
    return to.decimals is not None and abs(one.value - to.value) <= _unit(to.decimals)


def _unit(decimals: int) -> float:
    """How far a number may lie from its rounding to so many decimals: half a unit of the last."""
    return (0.5 + SLIP) * 10.0**-decimals


def _holds(left: str, sign: str, right: str, result: str) -> bool:
    a, b, c = (float(text.replace(",", "")) for text in (left, right, result))
    if sign in ("/", "//", "\u00f7"):
        exact = a / b if b else math.nan
        fine = sum(map(str.isdigit, result)) >= LEAST_DIGITS
        apart = _unit(len(result.partition(".")[2])) if fine else ROUNDING  # 200 / 3 = 66.7; but 10 / 3 = 3 is wrong
        return (sign == "//" and b != 0 and c == a // b) or abs(exact - c) <= max(apart, ROUNDING)
    exact = {"+": a + b, "-": a - b}.get(sign, a * b)
    return abs(exact - c) <= ROUNDING


def gold_quantity(gold: str) -> Quantity:
    """The number that a gold answer is; ValueError where it is none."""
    quantity = parse_number(gold)
    if quantity is None:
        raise ValueError(f"the gold answer is {gold[:80]!r}; give a number, or a letter of multiple choice")
    return quantity
