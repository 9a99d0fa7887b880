"""The one parser of answers, and its inverse that writes the SFT targets.

    <think>seven, three</think><answer>[{'Position': [12, 34, 56, 78], 'Confidence': 0.93}]</answer>
    <think>seven, three</think><answer>No Objects</answer>

A completion is untrusted text. It is capped in length and in boxes before anything is built from it, the regular
expressions are linear, and nothing is evaluated. An answer is taken as a whole: one bad box spoils it, so that a model
cannot mix valid boxes with garbage.

The list may use either quote, any JSON white space, integers or decimals, and its keys in either order. `[]` and
other spellings of 'No Objects' in upper or lower case are understood as 'none', but are not well-formed.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tasks.data.records import Box
from tasks.graders.boxes import ScoredBox

MAX_CHARACTERS = 65_536
MAX_BOXES = 100  # as many as COCO's AP looks at for one picture and category
NONE = "No Objects"
KEYS = {"Position", "Confidence"}
TAG = re.compile(r"</?(?:think|answer)>")
SINGLE_QUOTED = re.compile(r"'([^'\"\\]*)'")


class Failure(StrEnum):
    """Why an answer lost its reward or a part of it. Up to BAD_CONFIDENCE they are the parser's: no reward at all."""

    TOO_LONG = "too_long"
    NO_ANSWER = "no_answer"
    UNCLOSED_ANSWER = "unclosed_answer"  # mostly: the completion ran into its token limit
    SEVERAL_ANSWERS = "several_answers"
    NESTED_TAGS = "nested_tags"
    TOO_MANY_BOXES = "too_many_boxes"
    BAD_LIST = "bad_list"
    MISSING_KEY = "missing_key"
    BAD_BOX = "bad_box"  # not four numbers, not finite, outside 0..1000, reversed or empty
    BAD_CONFIDENCE = "bad_confidence"  # not a number in 0..1
    # The answer could be read, and is wrong:
    HALLUCINATED = "hallucinated"  # boxes where there is nothing
    OMITTED = "omitted"  # 'No Objects' where there are some
    NO_MATCH = "no_match"  # no box overlaps a gold box enough
    BAD_FORMAT = "bad_format"  # right or partly right, but not in the form asked for


@dataclass(frozen=True)
class Parsed:
    """What a completion states. With a `failure` there are no boxes; `well_formed` earns the format reward."""

    boxes: tuple[ScoredBox, ...] = ()
    failure: Failure | None = None
    well_formed: bool = False


class _Malformed(ValueError):
    """Carries the failure code out of the nested checks of an answer; never leaves this module."""

    def __init__(self, failure: Failure):
        super().__init__(failure.value)
        self.failure = failure


def parse_detection(completion: str) -> Parsed:
    """Boxes (thousandths) and confidences stated inside the single `<answer>`; any other text counts for nothing.

    Never raises on a string. Time is linear in the text, which may have at most `MAX_CHARACTERS`.
    """
    try:
        if len(completion) > MAX_CHARACTERS:
            raise _Malformed(Failure.TOO_LONG)
        content, framed = _answer(completion)
        boxes = _boxes(content)
    except _Malformed as error:
        return Parsed(failure=error.failure)
    return Parsed(boxes, well_formed=framed and (len(boxes) > 0 or content == NONE))


def format_answer(boxes: Sequence[Box], confidences: Sequence[float], think: str = "") -> str:
    """The text that `parse_detection` reads back as these boxes, rounded to thousandths and hundredths.

    A box that rounding would empty is widened to the whole thousandths around it. Raises ValueError for what could not
    be read back: such a target would teach a model an answer worth nothing.
    """
    entries = [
        f"{{'Position': {list(_rounded(box))}, 'Confidence': {confidence:.2f}}}"
        for box, confidence in zip(boxes, confidences, strict=True)
    ]
    text = f"<think>{think}</think><answer>{'[' + ', '.join(entries) + ']' if entries else NONE}</answer>"
    parsed = parse_detection(text)
    if not parsed.well_formed:
        raise ValueError(
            f"not a readable answer ({parsed.failure or 'bad_format'}): {text[:200]!r}; "
            f"give confidences in 0..1, at most {MAX_BOXES} boxes, and a thought without tags"
        )
    return text


def _answer(completion: str) -> tuple[str, bool]:
    """The stripped text of the single answer, and whether all of the text is one think block, then one answer block."""
    found = list(TAG.finditer(completion))
    tags = [match.group() for match in found]
    opened, closed = tags.count("<answer>"), tags.count("</answer>")
    if opened == 0:
        raise _Malformed(Failure.NO_ANSWER)
    start = tags.index("<answer>")
    if "</answer>" not in tags[start:]:
        raise _Malformed(Failure.UNCLOSED_ANSWER)
    thinks = max((i for i, tag in enumerate(tags[:start]) if tag == "<think>"), default=-1)
    within_think = thinks >= 0 and "</think>" not in tags[thinks:start] and "</think>" in tags[start:]
    if tags[start + 1] != "</answer>" or within_think:
        raise _Malformed(Failure.NESTED_TAGS)
    if opened > 1 or closed > 1:
        raise _Malformed(Failure.SEVERAL_ANSWERS)
    content = completion[found[start].end() : found[start + 1].start()].strip()
    framed = tags == ["<think>", "</think>", "<answer>", "</answer>"] and not any(
        outside.strip()
        for outside in (
            completion[: found[0].start()],
            completion[found[1].end() : found[2].start()],
            completion[found[3].end() :],
        )
    )
    return content, framed


def _boxes(content: str) -> tuple[ScoredBox, ...]:
    if content.casefold() == NONE.casefold():
        return ()
    if content.count("{") > MAX_BOXES:
        raise _Malformed(Failure.TOO_MANY_BOXES)
    if content.count("[") > MAX_BOXES + 1:  # bounds the depth too, far below the interpreter's recursion limit
        raise _Malformed(Failure.BAD_LIST)
    try:  # every number becomes a float: Python's integers refuse, and take long over, thousands of digits
        entries = json.loads(SINGLE_QUOTED.sub(r'"\1"', content), parse_int=float, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise _Malformed(Failure.BAD_LIST) from None
    if not isinstance(entries, list):
        raise _Malformed(Failure.BAD_LIST)
    return tuple(map(_scored_box, entries))


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """A key stated twice is refused: which of the two would count is nobody's business to guess."""
    if len(dict(pairs)) < len(pairs):
        raise _Malformed(Failure.BAD_LIST)
    return dict(pairs)


def _scored_box(entry: object) -> ScoredBox:
    if not isinstance(entry, dict):
        raise _Malformed(Failure.BAD_LIST)
    if entry.keys() != KEYS:
        raise _Malformed(Failure.BAD_LIST if entry.keys() > KEYS else Failure.MISSING_KEY)
    box, confidence = entry["Position"], entry["Confidence"]
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(x, float) and 0 <= x <= 1000 for x in box)):
        raise _Malformed(Failure.BAD_BOX)  # the comparison is false for NaN and for infinity
    if not (box[0] < box[2] and box[1] < box[3]):
        raise _Malformed(Failure.BAD_BOX)
    if not (isinstance(confidence, float) and 0 <= confidence <= 1):
        raise _Malformed(Failure.BAD_CONFIDENCE)
    return ScoredBox(tuple(box), confidence)


def _rounded(box: Box) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000):
        raise ValueError(f"box {box} is not x1 < x2, y1 < y2 in 0..1000 thousandths; clip it to the picture or drop it")
    (x1, x2), (y1, y2) = _rounded_side(x1, x2), _rounded_side(y1, y2)
    return x1, y1, x2, y2


def _rounded_side(low: float, high: float) -> tuple[int, int]:
    if round(low) == round(high):
        return math.floor(low), math.ceil(high)
    return round(low), round(high)
