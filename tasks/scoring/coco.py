"""COCO detection AP over a whole set of answers, computed by pycocotools.

Boxes stay in thousandths of the picture's sides: IoU does not change when an axis is scaled, and only `area = all` is
scored, so no picture sizes are needed. Only asked (picture, category) pairs count; for the others there is neither gold
nor a detection, and COCOeval passes over them.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def detection_ap(rows: Sequence[Mapping]) -> dict[str, float]:
    """{"ap": AP@[.5:.95], "ap50": AP@.5}, in 0..1, of prediction rows (predictions.jsonl) in any order.

    The stated confidence is the score. Mean over the categories that have gold boxes, as COCO does. COCO looks at 100
    detections for a picture and category, which is all that the parser lets through. Raises ValueError when a question
    stands there twice, or when no row has a gold box (AP is not defined then).
    """
    precision, _ = _evaluated(rows)
    with_gold = precision[0, 0] > -1
    return {"ap": float(precision[..., with_gold].mean()), "ap50": float(precision[0][..., with_gold].mean())}


def ap_by_category(rows: Sequence[Mapping]) -> dict[str, float]:
    """{category: AP@[.5:.95]} of those with gold boxes; their mean is `ap`. Raises as `detection_ap`."""
    precision, categories = _evaluated(rows)
    means = precision.mean(axis=(0, 1))
    return {name: float(mean) for name, mean in zip(categories, means, strict=True) if mean > -1}


def _evaluated(rows: Sequence[Mapping]) -> tuple[np.ndarray, list[str]]:
    """Precision (IoU thresholds, recalls, categories), and the names of the categories."""
    rows = sorted(rows, key=lambda row: (row["record_id"], row["asked"]))
    for row, following in pairwise(rows):
        if (row["record_id"], row["asked"]) == (following["record_id"], following["asked"]):
            raise ValueError(f"{row['record_id']!r} has two predictions for {row['asked']!r}; grade a question once")
    if not any(row["gold"] for row in rows):
        raise ValueError(f"no gold box in {len(rows)} predictions, so AP is not defined; grade pictures with objects")
    images, categories = _ids(row["record_id"] for row in rows), _ids(row["asked"] for row in rows)

    def annotation(row: Mapping, box: Sequence[float]) -> dict:
        x1, y1, x2, y2 = box
        place = {"image_id": images[row["record_id"]], "category_id": categories[row["asked"]]}
        return place | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}

    gold = [annotation(row, box) for row in rows for box in row["gold"]]
    detections = [
        annotation(row, box) | {"score": confidence}
        for row in rows
        for box, confidence in zip(row["boxes"], row["confidences"], strict=True)
    ]
    return _precision(_index(gold, images, categories), _index(detections, images, categories)), list(categories)


def _ids(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted(set(names)), start=1)}


def _precision(gold: COCO, detections: COCO) -> np.ndarray:
    """(IoU thresholds .5 to .95, recalls, categories), -1 for a category without gold."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
        evaluation = COCOeval(gold, detections, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0, -1]


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
