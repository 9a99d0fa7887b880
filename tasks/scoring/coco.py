"""COCO detection AP over a whole set of answers, and over any resample of its pictures.

pycocotools matches detections with gold boxes, once; precision and recall are then added up here, each picture as often
as it was drawn. With every picture once this is COCOeval.accumulate to 1e-9. Where a picture is drawn twice and two of
its detections of one category have the same confidence, COCOeval's own order of the tied four differs from ours.

Boxes stay in thousandths of the picture's sides: IoU does not change when an axis is scaled, and only `area = all` is
scored, so no picture sizes are needed. Only asked (picture, category) pairs count; for the others there is neither gold
nor a detection, and COCOeval passes over them.

Regions to ignore are matched as COCO's crowds, VOC's 'difficult' objects too: a detection there counts for nothing. So
does one that matches nothing where not all objects are labelled, LVIS's `not_exhaustive_category_ids`. With all that
LVIS says of a picture asked (`grade.existence: all`) AP is then the LVIS API's, but for its limit of 300 detections of
a picture: here it is COCO's, 100 of each category.
"""

import contextlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

RECALLS = Params("bbox").recThrs  # 0, 0.01 ... 1
THRESHOLDS = {"ap": slice(None), "ap50": 0, "ap75": 5}  # of the IoUs .5, .55 ... .95


@dataclass(frozen=True)
class Detections:
    """Those of one category in the whole set, the surest first."""

    picture: np.ndarray  # (D,) the place in Matches.questions
    right: np.ndarray  # (10 IoU thresholds, D) bool: matched with a gold box
    counted: np.ndarray  # (10, D) bool: right or wrong; others are on a region to ignore, or nobody knows


@dataclass(frozen=True)
class Matches:
    """A set of answers as AP needs it. Pictures and categories are in alphabetical order."""

    questions: dict[str, int]  # picture -> questions about it
    categories: tuple[str, ...]
    gold: np.ndarray  # (pictures, categories) number of gold boxes
    detections: tuple[Detections, ...]  # one a category


def match(rows: Sequence[Mapping]) -> Matches:
    """Match the boxes of prediction rows (predictions.jsonl) in any order with their gold boxes; confidence is score.

    `ignore` (boxes) and `exhaustive` of a row are those of its `Question`. COCO looks at 100 detections for a picture
    and category, which is all that the parser lets through.

    Raises ValueError when a question stands there twice, or when no row has a gold box (AP is not defined then).
    """
    rows = sorted(rows, key=lambda row: (row["record_id"], row["asked"]))
    for row, following in pairwise(rows):
        if (row["record_id"], row["asked"]) == (following["record_id"], following["asked"]):
            raise ValueError(f"{row['record_id']!r} has two predictions for {row['asked']!r}; grade a question once")
    if not any(row["gold"] for row in rows):
        raise ValueError(f"no gold box in {len(rows)} predictions, so AP is not defined; grade pictures with objects")
    questions = {picture: len(list(asked)) for picture, asked in groupby(rows, key=lambda row: row["record_id"])}
    images, categories = _ids(questions), _ids(row["asked"] for row in rows)
    gold = np.zeros((len(images), len(categories)), dtype=int)
    for row in rows:
        gold[images[row["record_id"]] - 1, categories[row["asked"]] - 1] = len(row["gold"])
    evaluation = evaluated(rows, images, categories)
    found = [[e for e in evaluation.evalImgs if e and e["category_id"] == i] for i in categories.values()]
    partly = {(images[r["record_id"]], categories[r["asked"]]) for r in rows if not r["exhaustive"]}
    return Matches(questions, tuple(categories), gold, tuple(_detections(some, partly) for some in found))


def average_precision(matches: Matches, counts: np.ndarray) -> np.ndarray:
    """AP (N, categories, 10 IoU thresholds), in 0..1, of N sets in which picture p stands counts[n, p] times.

    NaN for a category that has no gold box in a set. As COCO does it: the mean over 101 recalls of the best precision
    at that recall or a higher one. Only right detections raise the recall, so the sum runs over those.
    """
    num_gold = counts @ matches.gold  # (N, categories)
    ap = np.empty((*num_gold.shape, matches.detections[0].right.shape[0]))
    for category, found in enumerate(matches.detections):
        drawn = counts[:, found.picture].astype(float)  # (N, D)
        so_far, num = drawn.cumsum(axis=1), np.maximum(num_gold[:, category, None], 1)
        for threshold, (right, counted) in enumerate(zip(found.right, found.counted, strict=True)):
            hits = np.flatnonzero(right)
            num_right = drawn[:, hits].cumsum(axis=1)  # (N, hits)
            num_found = (so_far if counted.all() else (drawn * counted).cumsum(axis=1))[:, hits]
            precision = num_right / (num_found + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = RECALLS.searchsorted(num_right / num, side="right")
            ap[:, category, threshold] = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    ap[num_gold == 0] = np.nan
    return ap


def mean_ap(ap: np.ndarray) -> dict[str, np.ndarray]:
    """{"ap": AP@[.5:.95], "ap50": AP@.5, "ap75": AP@.75}, each (N,): means over the categories that have gold boxes."""
    return {name: np.nanmean(ap[..., chosen].reshape(len(ap), -1), axis=1) for name, chosen in THRESHOLDS.items()}


def detection_ap(rows: Sequence[Mapping]) -> dict:
    """{"ap", "ap50", "ap75", "ap_by_category": {category: AP@[.5:.95]}}; categories without gold have none.

    Raises as `match`.
    """
    matches = match(rows)
    ap = average_precision(matches, np.ones((1, len(matches.questions)), dtype=int))
    by_category = zip(matches.categories, ap[0].mean(axis=1), strict=True)
    return {name: float(value[0]) for name, value in mean_ap(ap).items()} | {
        "ap_by_category": {category: float(mean) for category, mean in by_category if not np.isnan(mean)}
    }


def evaluated(rows: Sequence[Mapping], images: Mapping[str, int], categories: Mapping[str, int]) -> COCOeval:
    """pycocotools with its matching done; `images` and `categories` number the pictures and the categories."""

    def annotation(row: Mapping, box: Sequence[float], crowd: int = 0) -> dict:
        x1, y1, x2, y2 = box
        place = {"image_id": images[row["record_id"]], "category_id": categories[row["asked"]]}
        return place | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": crowd}

    gold = [annotation(row, box) for row in rows for box in row["gold"]]
    gold += [annotation(row, box, crowd=1) for row in rows for box in row["ignore"]]
    detections = [
        annotation(row, box) | {"score": confidence}
        for row in rows
        for box, confidence in zip(row["boxes"], row["confidences"], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
        evaluation = COCOeval(_index(gold, images, categories), _index(detections, images, categories), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    return evaluation


def _ids(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted(set(names)), start=1)}


def _detections(found: Sequence[Mapping], partly: Collection[tuple[int, int]]) -> Detections:
    """One category's results of COCOeval, by picture; sorted as COCOeval.accumulate does, ties in the order found. Of
    the pairs `partly` (picture, category) not all objects are labelled.
    """
    if not found:  # asked for, but neither there nor stated
        return Detections(np.empty(0, dtype=int), *(np.empty((10, 0), dtype=bool) for _ in range(2)))
    scores = np.concatenate([e["dtScores"] for e in found])
    order = np.argsort(-scores, kind="mergesort")
    picture = np.concatenate([np.full(len(e["dtScores"]), e["image_id"] - 1) for e in found])
    matched = np.concatenate([e["dtMatches"] for e in found], axis=1)[:, order] > 0
    ignored = np.concatenate([e["dtIgnore"] for e in found], axis=1)[:, order] > 0
    unsure = np.concatenate([np.full(len(e["dtScores"]), (e["image_id"], e["category_id"]) in partly) for e in found])
    counted = ~ignored & (matched | ~unsure[order])
    return Detections(picture[order], matched & counted, counted)


def _index(annotations: list[dict], images: Mapping[str, int], categories: Mapping[str, int]) -> COCO:
    """A COCO set in memory. Ids start at 1: COCOeval takes a match with id 0 for no match, and AP falls in silence.

    `COCO.loadRes` is not used, because it cannot take an empty list.
    """
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in images.values()],
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": [annotation | {"id": i} for i, annotation in enumerate(annotations, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
