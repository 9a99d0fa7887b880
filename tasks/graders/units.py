"""Boxes in the units that a model writes them in: the picture has `sides` (width, height) of them, 1000 by default.

Graders see thousandths only. A completion in other units is rewritten before it is graded, box by box: four numbers in
brackets, or two corners. What is no box of finite numbers stays as it is, for the parser to refuse.
"""

import math
import re

from tasks.data.records import Box

Sides = tuple[float, float]  # of the picture: width, height
THOUSANDTHS: Sides = (1000, 1000)
# possessive, so linear; groups are atomic, since before Python 3.11.5 a possessive one keeps what it failed within
NUMBER = r"\s*+[-+]?[0-9]++(?>(?:\.[0-9]++)?)(?>(?:[eE][-+]?[0-9]++)?)\s*+"
BOX = re.compile(
    rf"(?P<list>\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\])|\({NUMBER},{NUMBER}\)\s*+(?>(?:,\s*+)?)\({NUMBER},{NUMBER}\)",
    re.ASCII,
)
DIGITS = re.compile(NUMBER.replace(r"\s*+", ""), re.ASCII)
CORNER = re.compile(r"\[([0-9]++), ([0-9]++)\]")


def to_thousandths(completion: str, sides: Sides) -> str:
    """The completion with every box in thousandths, to six decimals; itself where the units are thousandths."""
    return completion if sides == THOUSANDTHS else BOX.sub(lambda found: _scaled(found, sides), completion)


def whole(box: Box, sides: Sides) -> tuple[int, int, int, int]:
    """A box in thousandths as whole units; a side that rounding would empty is widened to the units around it.

    Raises ValueError for a box that is reversed, empty or not within 0..1000.
    """
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000):
        raise ValueError(f"box {box} is not x1 < x2, y1 < y2 in 0..1000 thousandths; clip it to the picture or drop it")
    (x1, x2), (y1, y2) = _whole_side(x1, x2, sides[0]), _whole_side(y1, y2, sides[1])
    return x1, y1, x2, y2


def corners(thought: str, sides: Sides) -> str:
    """The thinking of an SFT target, its corners 'two [134, 18]' from thousandths to whole units."""
    width, height = sides

    def scaled(found: re.Match) -> str:
        return f"[{round(int(found[1]) * width / 1000)}, {round(int(found[2]) * height / 1000)}]"

    return thought if sides == THOUSANDTHS else CORNER.sub(scaled, thought)


def _scaled(found: re.Match, sides: Sides) -> str:
    numbers = [1000 * float(n) / side for n, side in zip(DIGITS.findall(found[0]), sides * 2, strict=True)]
    if not all(map(math.isfinite, numbers)):
        return found[0]
    x1, y1, x2, y2 = (f"{n:.6f}" for n in numbers)
    return f"[{x1}, {y1}, {x2}, {y2}]" if found["list"] else f"({x1},{y1}),({x2},{y2})"


def _whole_side(low: float, high: float, side: float) -> tuple[int, int]:
    low, high = low * side / 1000, high * side / 1000
    if round(low) == round(high):
        return math.floor(low), math.ceil(high)
    return round(low), round(high)
