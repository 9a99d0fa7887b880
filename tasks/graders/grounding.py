"""Answers that are one box, the region that an instruction refers to.

    <think>the largest is the red seven</think><answer>(12,34),(56,78)</answer>
    <think>the largest is the red seven</think><answer>[12, 34, 56, 78]</answer>

Corners in thousandths, integers or decimals. Exactly one box is demanded, and nothing beside it: the published parser
takes every number of the answer, so that two boxes score 34.5, an inverted one 2, and decimals 0.
"""

import re
from dataclasses import dataclass

from tasks.data.records import Box
from tasks.graders.frame import Failure, Malformed, frame, unframe
from tasks.graders.units import THOUSANDTHS, Sides, to_thousandths, whole

NUMBER = r"\s*+([-+]?[0-9]++(?>(?:\.[0-9]++)?))\s*+"  # possessive or atomic (see tasks.graders.units), so linear
CORNERS = rf"\({NUMBER},{NUMBER}\)\s*+(?>(?:,\s*+)?)\({NUMBER},{NUMBER}\)"
LIST = rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]"
BOX = re.compile(f"{CORNERS}|{LIST}", re.ASCII)


@dataclass(frozen=True)
class ParsedBox:
    """The stated box. With a `failure` it is None; `well_formed` earns the format reward."""

    box: Box | None = None
    failure: Failure | None = None
    well_formed: bool = False


def parse_grounding(completion: str, thinking: bool = True) -> ParsedBox:
    """The one box (thousandths) inside the single `<answer>`. Never raises on a string; linear in the text."""
    try:
        framed = unframe(completion, thinking)
        box = _box(framed.content)
    except Malformed as error:
        return ParsedBox(failure=error.failure)
    return ParsedBox(box, well_formed=framed.whole)


def format_box(box: Box, think: str | None = "", sides: Sides = THOUSANDTHS) -> str:
    """The text that `parse_grounding` reads back as this box (thousandths), in whole units of `sides`.

    Raises ValueError where it could not.
    """
    x1, y1, x2, y2 = whole(box, sides)
    text = frame(f"({x1},{y1}),({x2},{y2})", think)
    parsed = parse_grounding(to_thousandths(text, sides), thinking=think is not None)
    if not parsed.well_formed:
        raise ValueError(
            f"not a readable answer ({parsed.failure or 'bad_format'}): {text[:200]!r}; give a thought without tags"
        )
    return text


def _box(content: str) -> Box:
    first = BOX.search(content)
    if first is None:
        raise Malformed(Failure.NO_BOX)
    if BOX.search(content, first.end()):
        raise Malformed(Failure.SEVERAL_BOXES)
    if first.group() != content:
        raise Malformed(Failure.BAD_BOX)
    x1, y1, x2, y2 = (float(number) for number in first.groups() if number is not None)
    if not (0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000):
        raise Malformed(Failure.BAD_BOX)
    return x1, y1, x2, y2
