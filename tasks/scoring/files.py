"""AP of a file of detections against a file of labels: COCO's twelve numbers, and LVIS's thirteen.

Boxes are in pixels ([x, y, w, h]). On valid files the numbers are those of pycocotools and of the LVIS API; what makes
pycocotools wrong in silence (an annotation with id 0, no detection at all, a missing
area) is repaired here, and what cannot be is refused.
"""

import contextlib
import copy
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.data.drafts import short

NUM_LVIS = 300  # detections of a picture that LVIS looks at, over all categories
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LISTS = ("images", "categories", "annotations")
LARGEST = 1e15  # of a number in a file; a score, a side or an area beyond is a mistake
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent: by the number of training pictures


class ScoringError(ValueError):
    """A file of labels or detections that cannot be scored; the message names the item."""


def coco(gold: Path, found: Path) -> dict[str, float]:
    """COCO's twelve numbers, -1 where a size has no gold box. `ScoringError` for files that cannot be scored."""
    labels, detections = _labels(gold), _read(found)
    evaluation = COCOeval(_index(labels), _index(labels, _detections(detections, labels)), "bbox")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_NAMES, map(float, evaluation.stats), strict=True))


def lvis(gold: Path, found: Path) -> dict[str, float]:
    """LVIS's numbers (arXiv 1908.03195): AP, by IoU, by size, of rare, common and frequent categories, and recall.

    Federated: a detection counts only where its category is known to be, or known not to be, in the picture
    (`neg_category_ids`); one that matches nothing is not held against a category that is not labelled exhaustively
    there (`not_exhaustive_category_ids`). The 300 best detections of a picture count.
    """
    labels, detections = _labels(gold), _read(found)
    for image in labels["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            if key not in image:
                raise ScoringError(f"{gold}: image {image['id']} has no {key}; LVIS labels need it")
            if not isinstance(image[key], list) or not all(isinstance(i, int | str) for i in image[key]):
                raise ScoringError(f"{gold}: image {image['id']}: {key} {short(image[key])} is no list of categories")
    evaluation = _Federated(_index(labels), _index(labels, _best(_detections(detections, labels), NUM_LVIS)), "bbox")
    evaluation.params.maxDets = [NUM_LVIS]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return _lvis_numbers(evaluation, [c.get("frequency") for c in sorted(labels["categories"], key=lambda c: c["id"])])


class _Federated(COCOeval):
    def _prepare(self) -> None:
        super()._prepare()
        images = {image["id"]: image for image in self.cocoGt.dataset["images"]}
        negative = {i: set(image["neg_category_ids"]) for i, image in images.items()}
        self.not_exhaustive = {i: set(image["not_exhaustive_category_ids"]) for i, image in images.items()}
        known = {pair: boxes for pair, boxes in self._dts.items() if self._gts[pair] or pair[1] in negative[pair[0]]}
        self._dts = defaultdict(list, known)

    def evaluateImg(self, image, category, areas, most):
        result = super().evaluateImg(image, category, areas, most)
        if result is not None and category in self.not_exhaustive[image]:
            result["dtIgnore"] = np.logical_or(result["dtIgnore"], result["dtMatches"] == 0)
        return result


def _lvis_numbers(evaluation: COCOeval, frequencies: Sequence[str | None]) -> dict[str, float]:
    """`precision` is (IoU, recall, category, size, 1), `recall` (IoU, category, size, 1); -1 where there is no gold."""
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    sizes = {"s": 1, "m": 2, "l": 3}
    groups = {f: [i for i, other in enumerate(frequencies) if other == f] for f in FREQUENCIES}
    return {
        "AP": mean(precision[..., 0]),
        "AP50": mean(precision[0, ..., 0]),
        "AP75": mean(precision[5, ..., 0]),
        **{f"AP{name}": mean(precision[..., size]) for name, size in sizes.items()},
        **{f"AP{f}": mean(precision[:, :, group, 0]) for f, group in groups.items()},
        f"AR@{NUM_LVIS}": mean(recall[..., 0]),
        **{f"AR{name}@{NUM_LVIS}": mean(recall[..., size]) for name, size in sizes.items()},
    }


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScoringError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ScoringError(f"{path} is not JSON: {error}") from None


def _labels(path: Path) -> dict:
    """A labels file with `area` and `iscrowd` filled in and its annotations numbered from 1.

    COCOeval takes a match with id 0 for no match, so ids are never those of the file.
    """
    data = _read(path)
    missing = [k for k in LISTS if not isinstance(data, dict) or k not in data]
    if missing:
        raise ScoringError(f"{path} has no {', '.join(missing)}; it is no COCO or LVIS labels file")
    ids = {kind: _ids(data[kind], f"{path}: {kind}") for kind in LISTS}
    annotations = []
    for number, annotation in enumerate(data["annotations"], start=1):
        who = f"{path}: annotation {annotation['id']}"
        _check(annotation, ids, who)
        _, _, width, height = annotation["bbox"]
        area, crowd = annotation.get("area", width * height), annotation.get("iscrowd", 0)
        if not _is_number(area):
            raise ScoringError(f"{who}: area {short(area)} is no number; leave it out, and it is that of the box")
        if crowd not in (0, 1):
            raise ScoringError(f"{who}: iscrowd {short(crowd)} is neither 0 nor 1; leave it out for 0")
        annotations.append({**annotation, "area": area, "iscrowd": int(crowd), "id": number})
    return {**data, "annotations": annotations}


def _ids(items: object, what: str) -> set:
    """The ids of a list of items; `ScoringError` names the item without one, and those with the same."""
    if not isinstance(items, list):
        raise ScoringError(f"{what} is {short(items)}, where a list is wanted ([] for none)")
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("id"), int | str):
            raise ScoringError(f"{what}[{place}] has no id: {short(item)}; give each a number of its own")
    if twice := [i for i, num in Counter(item["id"] for item in items).items() if num > 1]:
        raise ScoringError(f"{what} with the same id: {twice[:5]}; number them apart")
    return {item["id"] for item in items}


def _detections(rows: object, labels: dict) -> list[dict]:
    """Detections with an area and numbers from 1; `ScoringError` names one without a finite box and score."""
    if not isinstance(rows, list):
        raise ScoringError("the detections are no JSON list of {image_id, category_id, bbox, score}")
    ids = {kind: {item["id"] for item in labels[kind]} for kind in ("images", "categories")}
    detections = []
    for number, row in enumerate(rows, start=1):
        who = f"detection {number - 1}"
        _check(row, ids, who)
        if not _is_number(row.get("score")):
            raise ScoringError(f"{who}: score {short(row.get('score'))} is no finite number")
        area = row["bbox"][2] * row["bbox"][3]
        detections.append({**row, "id": number, "area": area, "iscrowd": 0})
    return detections


def _is_number(value: object) -> bool:
    """A finite number that no arithmetic on boxes can make infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _check(row: object, ids: dict[str, set], who: str) -> None:
    if not isinstance(row, dict):
        raise ScoringError(f"{who}: {short(row)} is no object")
    for key, kind in (("image_id", "images"), ("category_id", "categories")):
        if not isinstance(row.get(key), int | str) or row[key] not in ids[kind]:
            raise ScoringError(f"{who}: {key} {short(row.get(key))} is not among the {kind}")
    box = row.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box)):
        raise ScoringError(f"{who}: bbox {short(box)} is not [x, y, width, height]")
    if not all(map(_is_number, box)) or box[2] < 0 or box[3] < 0:
        raise ScoringError(f"{who}: bbox {short(box)} is not finite, or has a negative side; mend it or leave it out")


def _best(detections: list[dict], most: int) -> list[dict]:
    """The `most` surest of each picture; earlier ones first where the scores are equal."""
    by_image = defaultdict(list)
    for detection in detections:
        by_image[detection["image_id"]].append(detection)
    kept = [sorted(some, key=lambda d: -d["score"])[:most] if len(some) > most else some for some in by_image.values()]
    return [detection for some in kept for detection in some]


def _index(labels: dict, annotations: list[dict] | None = None) -> COCO:
    """A COCO set in memory: the labels, or the detections in the place of theirs."""
    indexed = COCO()
    indexed.dataset = copy.copy(labels)
    if annotations is not None:
        indexed.dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        indexed.createIndex()
    return indexed
