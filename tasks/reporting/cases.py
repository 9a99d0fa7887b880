"""The cases of the browser: each picture once, and over it the true boxes and every policy's, as shapes of the page."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from tasks.data.records import Box
from tasks.reporting.selection import Case, Outcome
from tasks.reporting.words import name

LONG_SIDE = 480  # pixels; a larger picture shrinks, and is then compressed with losses
UNITS = 1000  # of a drawn picture's longer side
AROUND = 300  # bytes of the page around a picture
APART = 9  # units between the lines of two policies that state the same box


@dataclass(frozen=True)
class Picture:
    """A test picture as the page holds it; sides in UNITS. A small one is shown with its pixels as they are."""

    id: str
    uri: str
    width: float
    height: float
    is_small: bool


@dataclass(frozen=True)
class Mark:
    """A box in UNITS with its tag, whose corner or end is at `tag_x`, `tag_y`."""

    source: str  # 'gold' or a policy
    x: float
    y: float
    width: float
    height: float
    tag: str
    tag_x: float
    tag_y: float
    anchor: str


@dataclass(frozen=True)
class View:
    """`html` is what `write` made of the case."""

    case: Case
    marks: tuple[Mark, ...]
    html: str


Writer = Callable[[Case, Picture | None, Sequence[Mark]], str]  # a problem in words has no picture


def drawn(outcomes: Sequence[Outcome]) -> list[Case]:
    """In turn from each outcome at each k; one that was drawn for several algorithms once."""
    turns = (case for turn in zip_longest(*(outcome.shown for outcome in outcomes)) for case in turn if case)
    return list({(case.k, case.sft.question): case for case in turns}.values())


def views(cases: Sequence[Case], pool: Path, write: Writer, room: int) -> tuple[tuple[View, ...], tuple[Picture, ...]]:
    """As many of the first cases as fit into `room`, in bytes of the page. The first that does not fit is the end:
    shorter ones after it would be a choice by the length of the answers.
    """
    pictures: dict[str, Picture] = {}
    found = []
    for case in cases:
        file, picture, size = case.sft.image, None, 0
        if file is not None:
            picture = pictures.get(file) or _picture(pool / file, f"picture-{len(pictures)}")
            size = 0 if file in pictures else len(picture.uri) + AROUND
        marks = tuple(_marks(case, picture)) if picture else ()
        html = write(case, picture, marks)
        room -= size + len(html.encode())
        if room < 0:
            break
        found.append(View(case, marks, html))
        if picture:
            pictures[file] = picture
    return tuple(found), tuple(pictures.values())


def _picture(path: Path, identity: str) -> Picture:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    is_small, longest = max(picture.size) <= LONG_SIDE // 2, max(picture.size)
    picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=is_small, quality=100 if is_small else 75, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    longest = max(picture.size)
    width, height = (UNITS * side / longest for side in picture.size)
    return Picture(identity, uri, round(width, 1), round(height, 1), is_small)


def _marks(case: Case, picture: Picture) -> Iterable[Mark]:
    """Truth outermost, then base, SFT and the algorithms inwards, so that equal boxes stay visible side by side."""
    for box in case.sft.gold:
        yield _mark("gold", box, "truth", APART, picture)
    shifts = {"base": 2 * APART, "sft": 0}
    for i, (policy, answer) in enumerate(case.answers.items()):
        confidences = answer.confidences or (None,) * len(answer.boxes)  # a grounding answer has none
        for box, confidence in zip(answer.boxes, confidences, strict=True):
            tag = name(policy) if confidence is None else f"{name(policy)} {confidence:.2f}"
            yield _mark(policy, box, tag, shifts.get(policy, (1 - i) * APART), picture)


def _mark(source: str, box: Box, tag: str, shift: int, picture: Picture) -> Mark:
    """`shift` outwards. Truth is named above its box; SFT beside it where there is room; the others below."""
    sides = (picture.width, picture.height) * 2
    x1, y1, x2, y2 = (value * side / 1000 for value, side in zip(box, sides, strict=True))
    shift = max(shift, -(min(x2 - x1, y2 - y1) - 1) / 2)  # never turned inside out
    x1, y1, x2, y2 = x1 - shift, y1 - shift, x2 + shift, y2 + shift
    right = (x2 + 8, y1 + 34, "start") if x2 < 0.78 * picture.width else (x1 - 8, y1 + 34, "end")
    below = (x1, y2 + 42, "start") if y2 < picture.height - 20 else (x1, y1 + 42, "start")
    above = (x1, y1 - 12, "start")
    tag_x, tag_y, anchor = {"gold": above, "sft": right}.get(source, below)
    numbers = (round(v, 1) for v in (x1, y1, x2 - x1, y2 - y1))
    return Mark(source, *numbers, tag, round(tag_x, 1), round(tag_y, 1), anchor)
