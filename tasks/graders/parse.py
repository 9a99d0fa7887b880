"""The parser of detection answers, and its inverse that writes the SFT targets.

    <think>seven, three</think><answer>[{'Position': [12, 34, 56, 78], 'Confidence': 0.93}]</answer>
    <think>seven, three</think><answer>No Objects</answer>

The boxes are capped before anything is built from them. An answer is taken as a whole: one bad box spoils it, so that a
model cannot mix valid boxes with garbage.

The list may use either quote, any JSON white space, integers or decimals, and its keys in either order. `[]` and
other spellings of 'No Objects' in upper or lower case are understood as 'none', but are not well-formed.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.data.records import Box
from tasks.graders.boxes import ScoredBox
from tasks.graders.frame import Failure, Malformed, frame, unframe
from tasks.graders.units import THOUSANDTHS, Sides, to_thousandths, whole

MAX_BOXES = 100  # as many as COCO's AP looks at for one picture and category
NONE = "No Objects"
KEYS = {"Position", "Confidence"}
SINGLE_QUOTED = re.compile(r"'([^'\"\\]*)'")


@dataclass(frozen=True)
class Parsed:
    """What a completion states. With a `failure` there are no boxes; `well_formed` earns the format reward."""

    boxes: tuple[ScoredBox, ...] = ()
    failure: Failure | None = None
    well_formed: bool = False


def parse_detection(completion: str, thinking: bool = True) -> Parsed:
    """Boxes (thousandths) and confidences stated inside the single `<answer>`; any other text counts for nothing.

    Never raises on a string. Time is linear in the text, which may have at most `MAX_CHARACTERS`.
    """
    try:
        framed = unframe(completion, thinking)
        boxes = _boxes(framed.content)
    except Malformed as error:
        return Parsed(failure=error.failure)
    return Parsed(boxes, well_formed=framed.whole and (len(boxes) > 0 or framed.content == NONE))


def format_answer(
    boxes: Sequence[Box], confidences: Sequence[float], think: str | None = "", sides: Sides = THOUSANDTHS
) -> str:
    """The text that `parse_detection` reads back as these boxes (thousandths), rounded to whole units and hundredths.

    In units of which the picture has `sides`. A box that rounding would empty is widened to those around it. Raises
    ValueError for what could not be read back: such a target would teach a model an answer worth nothing.
    """
    entries = [
        f"{{'Position': {list(whole(box, sides))}, 'Confidence': {confidence:.2f}}}"
        for box, confidence in zip(boxes, confidences, strict=True)
    ]
    text = frame(f"[{', '.join(entries)}]" if entries else NONE, think)
    parsed = parse_detection(to_thousandths(text, sides), thinking=think is not None)
    if not parsed.well_formed:
        raise ValueError(
            f"not a readable answer ({parsed.failure or 'bad_format'}): {text[:200]!r}; "
            f"give confidences in 0..1, at most {MAX_BOXES} boxes, and a thought without tags"
        )
    return text


def _boxes(content: str) -> tuple[ScoredBox, ...]:
    if content.casefold() == NONE.casefold():
        return ()
    if content.count("{") > MAX_BOXES:
        raise Malformed(Failure.TOO_MANY_BOXES)
    # "[" bounds the depth too, far below the interpreter's recursion limit; a box has two keys
    if content.count("[") > MAX_BOXES + 1 or content.count("'") > 4 * MAX_BOXES:
        raise Malformed(Failure.BAD_LIST)
    try:  # every number becomes a float: Python's integers refuse, and take long over, thousands of digits
        entries = json.loads(SINGLE_QUOTED.sub(r'"\1"', content), parse_int=float, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise Malformed(Failure.BAD_LIST) from None
    if not isinstance(entries, list):
        raise Malformed(Failure.BAD_LIST)
    return tuple(map(_scored_box, entries))


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """A key stated twice is refused: which of the two would count is nobody's business to guess."""
    if len(dict(pairs)) < len(pairs):
        raise Malformed(Failure.BAD_LIST)
    return dict(pairs)


def _scored_box(entry: object) -> ScoredBox:
    if not isinstance(entry, dict):
        raise Malformed(Failure.BAD_LIST)
    if entry.keys() != KEYS:
        raise Malformed(Failure.BAD_LIST if entry.keys() > KEYS else Failure.MISSING_KEY)
    box, confidence = entry["Position"], entry["Confidence"]
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(x, float) and 0 <= x <= 1000 for x in box)):
        raise Malformed(Failure.BAD_BOX)  # the comparison is false for NaN and for infinity
    if not (box[0] < box[2] and box[1] < box[3]):
        raise Malformed(Failure.BAD_BOX)
    if not (isinstance(confidence, float) and 0 <= confidence <= 1):
        raise Malformed(Failure.BAD_CONFIDENCE)
    return ScoredBox(tuple(box), confidence)
