"""The metrics of each task over a whole set of prediction rows (predictions.jsonl), beside the mean reward.

METRICS names those that a table shows, with their headings; OPTIONAL ones only where they are defined; OWN those of
each task that get an interval beside the reward's. Unreadable answers count: as a wrong label, as IoU 0.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

from tasks.data.records import Box
from tasks.graders.boxes import area, iou
from tasks.graders.labels import canonical
from tasks.graders.published import lenient
from tasks.scoring.coco import detection_ap
from tasks.scoring.votes import pass_at_k

METRICS = {
    "detection": {
        "iou": "IoU",
        "ap": "AP",
        "ap50": "AP50",
        "ap_base": "AP base",
        "ap_novel": "AP novel",
        "ap_rare": "AP rare",
        "ap_common": "AP common",
        "ap_frequent": "AP frequent",
    },
    "classification": {
        "accuracy": "Accuracy",
        "accuracy_lenient": "Lenient accuracy",
        "accuracy_per_class": "Mean over classes",
    },
    "grounding": {
        "miou": "mIoU",
        "iou50": "IoU > 0.5",
        "giou_lisa": "gIoU (LISA)",
        "ciou": "cIoU",
        "mask_miou": "Mask mIoU",
        "mask_giou": "Mask gIoU (LISA)",
        "mask_ciou": "Mask cIoU",
    },
    "maths": {"accuracy": "Accuracy", "vote": "Majority vote", "rerank": "Reranked"},
    "program": {"accuracy": "Accuracy", "vote": "Majority vote", "rerank": "Reranked"},
    "ranking": {"top1": "Top-1", "top5": "Top-5", "top_max": "Top-max"},
    "job": {"graded": "Graded"},
}
OWN = {"detection": ("ap",), "classification": ("accuracy",), "grounding": ("miou",)}
OWN |= dict.fromkeys(("maths", "program"), ("accuracy", "vote"))
OWN |= {"ranking": ("top1", "top5", "top_max")}  # a job's graders are its own
FREQUENCIES = {"ap_rare": "r", "ap_common": "c", "ap_frequent": "f"}  # LVIS's, by the number of training pictures
MASKS = {"mask_miou", "mask_giou", "mask_ciou"}
# of open vocabulary; of LVIS; by grade.sam; by grade.samples; by grid.rerank
OPTIONAL = {"ap_base", "ap_novel", *FREQUENCIES, *MASKS, "vote", "rerank"}


def task_metrics(
    rows: Sequence[Mapping], base: Sequence[str] | None = None, frequency: Mapping[str, str] = MappingProxyType({})
) -> dict:
    """{metric: value in 0..1, or {class: value}} of every task that the rows hold; sub-rewards by their name too.

    `base`: the categories trained on, where others are tested; `frequency`: LVIS's f, c or r of a category. Raises
    ValueError as `detection_ap` does.
    """
    names = dict.fromkeys(name for row in rows for name in row["sub_rewards"])
    found: dict = {n: fmean(r["sub_rewards"][n] for r in rows if n in r["sub_rewards"]) for n in names}
    for score in dict.fromkeys(SCORES[task] for task in tasks_of(rows) if task in SCORES):
        found |= score([row for row in rows if SCORES.get(row["task"]) is score])
    own = list(map(own_values, rows))
    for metric in dict.fromkeys(metric for values in own for metric in values):  # of all that have it, as its interval
        found[metric] = fmean(values[metric] for values in own if metric in values)
    if base is not None and "ap_by_category" in found:
        found |= base_and_novel(found["ap_by_category"], base)
    return found | by_frequency(found.get("ap_by_category", {}), frequency)


def own_values(row: Mapping) -> dict[str, float]:
    """What those of OWN are the means of; without AP, which is no mean over rows, and a vote that nobody took. A name
    is ranked first, among the first five, or anywhere; a partial reward is not accurate.
    """
    match row["task"]:
        case "classification":
            return {"accuracy": row["sub_rewards"]["label"]}
        case "grounding":
            return {"miou": iou(row["boxes"][0], row["gold"][0]) if row["boxes"] else 0.0}
        case "maths" | "program":
            vote = {"vote": float(row["vote_right"])} if row.get("right") else {}
            return {"accuracy": float(row["sub_rewards"]["answer"] == 1), **vote}
        case "ranking":
            rank = row["rank"] or math.inf
            return {"top1": float(rank == 1), "top5": float(rank <= 5), "top_max": float(rank < math.inf)}
    return {}


def tasks_of(rows: Sequence[Mapping]) -> list[str]:
    """The tasks of the rows, in the order of METRICS."""
    present = {row["task"] for row in rows}
    return [task for task in METRICS if task in present]


def detection(rows: Sequence[Mapping]) -> dict:
    mean = fmean(row["sub_rewards"]["iou"] for row in rows)
    return {"iou": mean, **detection_ap(rows)}


def classification(rows: Sequence[Mapping]) -> dict:
    """Beside the accuracy by the grader's `label` (canonical form and aliases) that as published, where a part of the
    label, or the label among others, counts. `accuracy_per_class` is the mean over classes, each weighing alike.
    """
    by_class = defaultdict(list)
    for row in rows:
        by_class[canonical(row["gold_label"])].append(row["sub_rewards"]["label"])
    means = {label: fmean(values) for label, values in sorted(by_class.items())}
    return {
        "accuracy_lenient": fmean(
            row["label"] is not None and lenient(row["label"], row["gold_label"]) for row in rows
        ),
        "accuracy_per_class": fmean(means.values()),
        "accuracy_by_class": means,
    }


def grounding(rows: Sequence[Mapping]) -> dict[str, float]:
    """`iou50`: share of the questions with an IoU above 0.5; `giou_lisa`: mean over pictures of their mean IoU, 'gIoU'
    in LISA, which is not the generalised IoU of the sub-reward `giou`; `ciou`: all shared area / all united area (LISA,
    arXiv 2308.00692, section 4.1; areas are shares of the picture). The same of masks where the rows have them.
    """
    values, by_picture, shared, united = [], defaultdict(list), 0.0, 0.0
    for row in rows:
        (gold,), stated = row["gold"], row["boxes"][0] if row["boxes"] else None
        value = own_values(row)["miou"]
        values.append(value)
        by_picture[row["record_id"]].append(value)
        both = _shared(stated, gold) if stated else 0.0
        shared += both
        united += area(gold) + (area(stated) if stated else 0.0) - both
    return {
        "iou50": fmean(value > 0.5 for value in values),
        "giou_lisa": fmean(map(fmean, by_picture.values())),
        "ciou": shared / united,
        **masks([row for row in rows if row.get("mask_overlap")]),
    }


def masks(rows: Sequence[Mapping]) -> dict[str, float]:
    """{"mask_miou", "mask_giou", "mask_ciou"} of rows with `mask_overlap` ([pixels shared, pixels united]); nothing of
    no rows. Two empty masks are equal: 1, as LISA has it.
    """
    values, by_picture = [], defaultdict(list)
    for row in rows:
        shared, united = row["mask_overlap"]
        values.append(shared / united if united else 1.0)
        by_picture[row["record_id"]].append(values[-1])
    if not rows:
        return {}
    shared, united = (sum(row["mask_overlap"][place] for row in rows) for place in (0, 1))
    return {
        "mask_miou": fmean(values),
        "mask_giou": fmean(map(fmean, by_picture.values())),
        "mask_ciou": shared / united if united else 1.0,
    }


def answers(rows: Sequence[Mapping]) -> dict:
    """Maths and programs, with samples (`grade.samples`): {k: pass@k} for k = 1, 2, 4, ..."""
    if not rows[0].get("right"):
        return {}
    num = len(rows[0]["right"])
    ks = [2**power for power in range(num.bit_length())]
    passed = {k: fmean(pass_at_k(num, sum(row["right"]), k) for row in rows) for k in ks}
    return {"pass_at_k": passed}


def jobs(rows: Sequence[Mapping]) -> dict[str, float]:
    """The share of answers that every grader of an imported job could grade; their rewards have no scale of ours."""
    return {"graded": fmean(row["failure"] is None for row in rows)}


def base_and_novel(ap_by_category: Mapping[str, float], base: Sequence[str]) -> dict[str, float]:
    """Open vocabulary: {"ap_base", "ap_novel"}, means over the categories trained on and over the others; their mean
    over all is `ap`. One that no tested category belongs to is left out.
    """
    groups = {
        "ap_base": [ap for category, ap in ap_by_category.items() if category in base],
        "ap_novel": [ap for category, ap in ap_by_category.items() if category not in base],
    }
    return {name: fmean(values) for name, values in groups.items() if values}


def by_frequency(ap_by_category: Mapping[str, float], frequency: Mapping[str, str]) -> dict[str, float]:
    """LVIS's APr, APc and APf as {"ap_rare", "ap_common", "ap_frequent"}: means over the categories of a frequency; one
    that no tested category has is left out.
    """
    groups = {
        name: [ap for category, ap in ap_by_category.items() if frequency.get(category) == letter]
        for name, letter in FREQUENCIES.items()
    }
    return {name: fmean(values) for name, values in groups.items() if values}


def _shared(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


SCORES = {  # beside `own_values`, which are all that is known of a ranking
    "detection": detection,
    "classification": classification,
    "grounding": grounding,
    "maths": answers,
    "program": answers,
    "job": jobs,
}
