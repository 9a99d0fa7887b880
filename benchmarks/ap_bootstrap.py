"""AP on resamples of the pictures: ours against pycocotools, CPU seconds and the largest difference.

`python -m benchmarks.ap_bootstrap [--json] [--pictures 1000] [--resamples 1000] [--stock 5]`

The set is as dense as COCO: 80 categories, 2.9 of them in a picture, 7 objects, and as many detections again that are
wrong. Matching is done once for both; the stock way then runs COCOeval.accumulate on `--stock` of the same resamples,
and its seconds are extrapolated to all of them.
"""

import argparse
import contextlib
import io
import json
import time

import numpy as np
from pycocotools.cocoeval import COCOeval

from tasks.scoring.coco import average_precision, evaluated, match, mean_ap
from tasks.scoring.resampling import draws, resample_ap

NUM_CATEGORIES = 80


def scenes(num_pictures: int, rng: np.random.Generator) -> list[dict]:
    """Prediction rows: gold boxes; 85% of them found a little off, and about as many boxes where there is nothing."""
    rows = []
    for picture in range(num_pictures):
        for category in rng.choice(NUM_CATEGORIES, 1 + rng.poisson(1.9), replace=False):
            corners = rng.uniform(0, 800, (1 + rng.poisson(1.5), 2))
            gold = np.hstack([corners, corners + rng.uniform(40, 200, corners.shape)])
            found = (gold + rng.normal(0, 8, gold.shape))[rng.random(len(gold)) < 0.85]
            corners = rng.uniform(0, 800, (rng.poisson(2.4), 2))
            boxes = np.vstack([found, np.hstack([corners, corners + 100])])
            confidences = np.append(rng.beta(4, 2, len(found)), rng.beta(2, 4, len(corners)))
            named = {"record_id": f"{picture:06}", "asked": f"{category:02}", "ignore": [], "exhaustive": True}
            rows.append(named | {"gold": gold.tolist(), "boxes": boxes.tolist(), "confidences": confidences.tolist()})
    return rows


def stock_ap(evaluation: COCOeval, counts: np.ndarray, num_pictures: int) -> float:
    """AP of COCOeval.accumulate where picture p stands counts[p] times; `evaluation` has its matching done."""
    resampled = COCOeval(evaluation.cocoGt, evaluation.cocoDt, "bbox")
    chosen = np.repeat(np.arange(num_pictures), counts)
    by_category = np.array(evaluation.evalImgs, dtype=object).reshape(-1, num_pictures)
    resampled.params = resampled._paramsEval = evaluation._paramsEval
    resampled.params.imgIds, resampled.evalImgs = list(range(len(chosen))), by_category[:, chosen].ravel().tolist()
    with contextlib.redirect_stdout(io.StringIO()):
        resampled.accumulate()
    precision = resampled.eval["precision"][..., 0, -1]
    return float(precision[precision > -1].mean())


def measure(num_pictures: int, resamples: int, num_stock: int) -> dict:
    """CPU seconds of both ways for `resamples` draws, and the largest difference on the `num_stock` that both did."""
    rows = scenes(num_pictures, np.random.default_rng(0))
    names = [sorted({row[key] for row in rows}) for key in ("record_id", "asked")]
    evaluation = evaluated(rows, *({name: i for i, name in enumerate(some, start=1)} for some in names))
    began = time.process_time()
    matches = match(rows)
    matching = time.process_time() - began
    began = time.process_time()
    resample_ap({0: matches}, resamples=resamples)
    ours = time.process_time() - began
    everything = np.ones((1, num_pictures), dtype=int)
    counts = np.concatenate([everything, next(draws(num_pictures, num_stock, 0))])
    began = time.process_time()
    stock = [stock_ap(evaluation, drawn, num_pictures) for drawn in counts]
    seconds = (time.process_time() - began) * resamples / len(counts)
    found = mean_ap(average_precision(matches, counts))["ap"]
    return {
        "pictures": num_pictures,
        "gold_boxes": int(matches.gold.sum()),
        "detections": sum(len(d.picture) for d in matches.detections),
        "resamples": resamples,
        "ap": float(found[0]),
        "seconds_matching": matching,
        "seconds_ours": ours,
        "seconds_stock": seconds,
        "ratio": seconds / ours,
        "difference_of_the_set": abs(float(found[0] - stock[0])),
        "largest_difference": float(np.abs(found - stock).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--stock", type=int, default=5, help="resamples that pycocotools does")
    args = parser.parse_args()
    result = measure(args.pictures, args.resamples, args.stock)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(
        "{resamples} resamples of {pictures} pictures ({gold_boxes} gold boxes, {detections} detections, AP {ap:.3f}): "
        "{seconds_ours:.1f} CPU s, after {seconds_matching:.1f} s of matching; pycocotools {seconds_stock:.0f} s: "
        "{ratio:.0f} times as fast. Difference of AP: {difference_of_the_set:.0e} on the set itself, at most "
        "{largest_difference:.0e} on resamples.".format(**result)
    )


if __name__ == "__main__":
    main()
