"""Answers that are a label: strict equality of canonical forms, counts, and letters of multiple choice.

    <think>a red digit</think><answer>red seven</answer>

The published rule takes a substring in either direction for right, so that one letter, the list of all candidates or
nothing at all scores 1 (`tasks.graders.published.lenient`). Here what is stated must be the label, or one of its
aliases, as a whole.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.graders.frame import Failure, Malformed, frame, unframe

MAX_NAME = 1000  # characters of a label or a name: Unicode's normal form can be 18 times as long
DASHES = (
    "\u058a\u05be\u1400\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d\u301c\u3030\u30a0\ufe31\ufe32\ufe58"
    "\ufe63\uff0d\U00010ead"
)  # with '-' those of the category Pd of Unicode 15
JOINTS = re.compile(rf"[-_{DASHES}]+")
COUNT = re.compile(r"[0-9]{1,9}")
CHOICE = re.compile(r"\(?([A-Za-z])[).:]?")


@dataclass(frozen=True)
class ParsedLabel:
    """The text of the answer, stripped. With a `failure` it is None; `well_formed` earns the format reward."""

    label: str | None = None
    failure: Failure | None = None
    well_formed: bool = False


def parse_label(completion: str, thinking: bool = True) -> ParsedLabel:
    """The label stated inside the single `<answer>`, of at most MAX_NAME characters. Never raises on a string."""
    try:
        framed = unframe(completion, thinking)
    except Malformed as error:
        return ParsedLabel(failure=error.failure)
    if len(framed.content) > MAX_NAME:
        return ParsedLabel(failure=Failure.TOO_LONG)
    if not canonical(framed.content):
        return ParsedLabel(failure=Failure.EMPTY_ANSWER)
    return ParsedLabel(framed.content, well_formed=framed.whole)


def format_label(label: str, think: str | None = "") -> str:
    """The text that `parse_label` reads back as this label; ValueError where it could not be."""
    text = frame(label, think)
    parsed = parse_label(text, thinking=think is not None)
    if not parsed.well_formed or parsed.label != label:
        raise ValueError(
            f"not a readable answer ({parsed.failure or 'bad_format'}): {text[:200]!r}; "
            f"give a label of at most {MAX_NAME} characters without tags or outer space, and a thought without tags"
        )
    return text


def canonical(label: str) -> str:
    """NFKC, case folded, each run of white space, hyphens, dashes and underscores one space: 'B747_200' = 'b747-200'.

    Idempotent. Other punctuation is kept: 'st. bernard' is not 'st bernard' unless an alias says so.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return " ".join(JOINTS.sub(" ", folded).split())


def alias_table(aliases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """{canonical alias: canonical label} of {label: its aliases}; ValueError for an alias of two labels or of none."""
    table: dict[str, str] = {}
    for label, others in aliases.items():
        for name in (label, *others):
            known = table.setdefault(canonical(name), canonical(label))
            if not canonical(name):
                raise ValueError(f"aliases of {label!r}: {name!r} is empty in canonical form")
            if known != canonical(label):
                raise ValueError(f"aliases of {label!r}: {name!r} is {known!r} too; a name can stand for one label")
    return table


def label_reward(stated: str, gold: str, aliases: Mapping[str, str]) -> float:
    """1 where both canonical forms, or what `aliases` (`alias_table`) makes of them, are equal; else 0."""
    said, right = canonical(stated), canonical(gold)
    return float(aliases.get(said, said) == aliases.get(right, right))


def count_reward(stated: str, gold: str) -> float:
    """1 - |stated - gold| / max(stated, gold) of two whole numbers in digits, 1 for 0 and 0; 0 for other text."""
    if not COUNT.fullmatch(stated):
        return 0.0
    if not COUNT.fullmatch(gold):
        raise ValueError(f"the gold count is {gold!r}; a `count` grader needs labels that are whole numbers")
    said, right = int(stated), int(gold)
    return 1 - abs(said - right) / max(said, right, 1)


def choice_reward(stated: str, gold: str) -> float:
    """1 where both are the same letter: 'B', 'b', '(B)', 'B.' or 'B:'; 0 for other text, several letters included."""
    right = CHOICE.fullmatch(gold)
    if not right:
        raise ValueError(f"the gold choice is {gold!r}; a `choice` grader needs labels that are one letter")
    said = CHOICE.fullmatch(stated)
    return float(said is not None and said[1].upper() == right[1].upper())
