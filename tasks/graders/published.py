"""The published rewards, holes included, to set beside ours: in tests, in `benchmarks/hack_search.py`, and by the key
`published` of a rubric (`reward=published_visual_rft`). No experiment takes them.

Written from what was observed when Visual-RFT's reward code was executed at 9486633 (arXiv 2503.01785) and from what
VLM-R1's does (arXiv 2504.07615); their text is not used. They take a completion and a question as our graders do.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.data.records import Box, Question
from tasks.graders.boxes import ScoredBox, iou
from tasks.graders.detection import Match, match
from tasks.graders.frame import MAX_CHARACTERS
from tasks.graders.parse import MAX_BOXES

BETWEEN = re.compile(r"</think>\s*+<answer>")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
CORNERS = re.compile(r"\((\d+),\s*(\d+)\)")
PublishedGrader = Callable[[str, Question], float]
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]


@dataclass(frozen=True)
class Labelled:
    """A detection of the rewards that read labels (VLM-R1)."""

    label: str
    scored: ScoredBox


def published_iou(completion: str, question: Question) -> float:
    """`iou_matched`, version 2: a general answer checker runs first and is content with one number that both texts
    share; else sum(IoU) / max(stated, there). Nothing there: 0 for every answer.
    """
    ours = {float(n) for n in NUMBER.findall(_content(completion) or "")}
    if ours & {float(x) for box in question.boxes for x in box}:
        return 1.0
    return matched_iou(_boxes(completion), question.boxes)


def matched_iou(boxes: Sequence[ScoredBox], gold: Sequence[Box]) -> float:
    """Its second part alone."""
    matches = _matches(boxes, gold)
    return sum(m.iou for m in matches) / max(len(matches), len(gold)) if matches else 0.0


def published_equation_6(completion: str, question: Question) -> float:
    """The paper's eq. 6: sum(IoU) / stated, so that an omission is free."""
    matches = _matches(_boxes(completion), question.boxes)
    return sum(m.iou for m in matches) / len(matches) if matches else 0.0


def published_confidence(completion: str, question: Question) -> float:
    """Mean over the stated boxes of c where matched, 1 - c where not."""
    matches = _matches(_boxes(completion), question.boxes)
    values = [min(max(m.confidence, 0), 1) for m in matches]  # NaN stays NaN
    scores = [c if m.iou > 0 else 1 - c for c, m in zip(values, matches, strict=True)]
    return sum(scores) / len(scores) if scores else 0.0


def published_format(completion: str, question: Question) -> float:
    """The whole text is a think block, then an answer block."""
    if not (completion.startswith("<think>") and completion.endswith("</answer>")):
        return 0.0
    return float(BETWEEN.search(completion, len("<think>"), len(completion) - len("</answer>")) is not None)


def lenient(stated: str, gold: str) -> bool:
    """Two-way substring after dropping spaces and underscores: Visual-RFT's accuracy, and its classification reward."""
    said, right = (re.sub(r"[\s_]", "", text).lower() for text in (stated, gold))
    return said in right or right in said


def published_label(completion: str, question: Question) -> float:
    """`lenient` on the answer, or on the whole completion where there is none."""
    content = _content(completion)
    return float(lenient(completion if content is None else content, question.label or ""))


def published_grounding(completion: str, question: Question) -> float:
    """GIoU + 1 of the first two corners, with signed areas and no look at their order; integers only."""
    corners = [float(n) for corner in CORNERS.findall(_content(completion) or "")[:2] for n in corner]
    return 1 + _signed_giou(corners, question.boxes[0]) if len(corners) == 4 else 0.0


def published_map(found: Sequence[Labelled], gold: Sequence[Labelled]) -> float:
    """VLM-R1's mAP of one picture over the labels of `gold`: a detection with any other label is dropped."""
    labels = sorted({g.label for g in gold})
    by_label = [
        _average_precision(
            [d.scored for d in found if d.label == name], [g.scored.box for g in gold if g.label == name]
        )
        for name in labels
    ]
    return sum(by_label) / len(by_label) if by_label else 0.0


def published_od_length(found: Sequence[Labelled], gold: Sequence[Labelled]) -> float:
    """VLM-R1's odLength: mAP x min(1, there / stated); a box too few is not priced by the second factor."""
    return published_map(found, gold) * min(1, len(gold) / len(found)) if found else 0.0


def graders_of(task: str) -> dict[str, PublishedGrader]:
    """{name: grader} of those that a rubric of the task can hold: in 0..1, with 0 for NaN and 1 for what is above."""
    return {name: _bounded(reward, scale) for name, (reward, scale) in BY_TASK.get(task, {}).items()}


def _bounded(reward: PublishedGrader, scale: float) -> PublishedGrader:
    def grade(completion: str, question: Question) -> float:
        value = 0.0 if len(completion) > MAX_CHARACTERS else reward(completion, question) / scale
        return 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)

    return grade


def _of_one_category(reward: Callable[[Sequence[Labelled], Sequence[Labelled]], float]) -> PublishedGrader:
    """A reward that reads labels, of an answer about one category."""

    def grade(completion: str, question: Question) -> float:
        found = [Labelled(question.asked, scored) for scored in _boxes(completion)]
        return reward(found, [Labelled(question.asked, ScoredBox(box, 1.0)) for box in question.boxes])

    return grade


def _content(completion: str) -> str | None:
    """Of the first answer on one line: with a newline in it, it is not found."""
    for line in completion.split("\n"):
        _, opened, rest = line.partition("<answer>")
        content, closed, _ = rest.partition("</answer>")
        if opened and closed:
            return content.strip()
    return None


def _boxes(completion: str) -> list[ScoredBox]:
    """Whatever cannot be read is nothing, in silence; NaN and any range pass."""
    try:
        entries = json.loads((_content(completion) or "").replace("'", '"'), parse_int=float)
        boxes = [ScoredBox(tuple(entry["Position"]), entry["Confidence"]) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    readable = (len(b.box) == 4 and all(isinstance(x, float) for x in (*b.box, b.confidence)) for b in boxes)
    return boxes if all(readable) else []


def _matches(boxes: Sequence[ScoredBox], gold: Sequence[Box]) -> tuple[Match, ...]:
    return match(boxes, gold, 0.5) if gold else ()


def _signed_giou(a: Sequence[float], b: Sequence[float]) -> float:
    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return (x2 - x1) * (y2 - y1)

    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = area(*a) + area(*b) - shared
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return shared / union - (hull - union) / hull if union and hull else 0.0


def _average_precision(found: Sequence[ScoredBox], gold: Sequence[Box]) -> float:
    """Mean over IoU .5 to .95 of the 101-point interpolated precision, as COCO's."""
    ranked = sorted(found, key=lambda s: -s.confidence)[:MAX_BOXES]
    total = 0.0
    for threshold in THRESHOLDS:
        free, hits, curve = list(gold), 0, []
        for n, stated in enumerate(ranked, start=1):
            best = max(free, key=lambda g: iou(stated.box, g), default=None)
            if best is not None and iou(stated.box, best) >= threshold:
                free.remove(best)
                hits += 1
            curve.append((hits / len(gold), hits / n))
        total += sum(max((p for r, p in curve if r >= i / 100), default=0.0) for i in range(101)) / 101
    return total / len(THRESHOLDS)


BY_TASK: dict[str, dict[str, tuple[PublishedGrader, float]]] = {  # with what the best answer earns
    "detection": {
        "iou_matched": (published_iou, 1),
        "equation_6": (published_equation_6, 1),
        "confidence": (published_confidence, 1),
        "map": (_of_one_category(published_map), 1),
        "od_length": (_of_one_category(published_od_length), 1),
        "format": (published_format, 1),
    },
    "classification": {"lenient": (published_label, 1), "format": (published_format, 1)},
    "grounding": {"giou": (published_grounding, 2), "format": (published_format, 1)},
}
