"""AP: hand-computed cases, parity with pycocotools called directly, and its known traps."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.scoring.coco import average_precision, detection_ap, match, mean_ap

A, B, FAR = [100, 100, 300, 300], [500, 500, 900, 700], [0, 900, 50, 950]


def ap_and_ap50(rows):
    found = detection_ap(rows)
    return {name: found[name] for name in ("ap", "ap50")}


def row(record_id, category, gold, *scored):
    return {
        "record_id": record_id,
        "asked": category,
        "gold": gold,
        "boxes": [box for box, _ in scored],
        "confidences": [confidence for _, confidence in scored],
        "ignore": [],
        "exhaustive": True,
    }


@pytest.mark.parametrize(
    ("rows", "ap", "ap50"),
    [
        pytest.param([row("p", "one", [A], (A, 0.3))], 1, 1, id="right: the first detection and gold box count too"),
        pytest.param([row("p", "one", [A])], 0, 0, id="no detection at all"),
        pytest.param([row("p", "one", [A], (FAR, 0.9))], 0, 0, id="wrong"),
        pytest.param([row("p", "one", [A], (A, 0.3), (FAR, 0.9))], 0.5, 0.5, id="a surer wrong one: precision 1/2"),
        pytest.param([row("p", "one", [A], (A, 0.9), (FAR, 0.3))], 1, 1, id="a less sure wrong one comes too late"),
        # Recall 1/2 at precision 1: 51 of the 101 recall points (0, 0.01 ... 0.5) count.
        pytest.param([row("p", "one", [A, B], (A, 0.9))], 51 / 101, 51 / 101, id="one of two"),
        # IoU 0.72 passes the thresholds .5 .55 .6 .65 .7: 5 of 10.
        pytest.param([row("p", "one", [A], ([100, 100, 300, 244], 1.0))], 0.5, 1, id="half of the thresholds"),
        pytest.param(
            [row("p", "one", [A], (A, 1.0)), row("p", "two", [B])], 0.5, 0.5, id="mean of a found and a missed category"
        ),
        pytest.param(
            [row("p", "one", [A], (A, 1.0)), row("p", "two", [], (B, 1.0))], 1, 1, id="no gold: not a category of AP"
        ),
        pytest.param(
            [row("p", "one", [A], (A, 0.5)), row("q", "one", [], (A, 0.9))], 0.5, 0.5, id="false alarm in a picture"
        ),
        pytest.param(
            [row("p", "one", [A], (A, 1.0)), row("q", "two", [B], (B, 1.0))], 1, 1, id="unasked pairs do not count"
        ),
    ],
)
def test_by_hand(rows, ap, ap50):
    assert ap_and_ap50(rows) == pytest.approx({"ap": ap, "ap50": ap50}, abs=1e-9)


def random_rows(rng, num_pictures=12, categories=("cat", "dog", "bus")):
    """Gold boxes, and detections that are gold boxes moved a little, or junk; one pair in four is not asked."""
    rows = []
    for picture in range(num_pictures):
        for category in categories:
            corners = rng.integers(0, 700, (rng.integers(0, 4), 2))
            gold = np.hstack([corners, corners + rng.integers(20, 300, corners.shape)]).tolist()
            moved = [[x + int(d) for x, d in zip(box, rng.integers(-15, 16, 4), strict=True)] for box in gold]
            boxes = [box for box in [*moved, FAR] if box[0] < box[2] and box[1] < box[3] and rng.random() < 0.8]
            if rng.random() < 0.75:
                scores = np.round(rng.random(len(boxes)), 6).tolist()
                rows.append(row(f"p{picture:02}", category, gold, *zip(boxes, scores, strict=True)))
    return rows


def reference(rows, tmp_path, width=640, height=427):
    """pycocotools as its demo calls it: files, `loadRes`, pixels of a picture that is not square, `summarize`."""
    pictures = sorted({r["record_id"] for r in rows})
    categories = sorted({r["asked"] for r in rows})

    def place(r, box):
        x1, y1, x2, y2 = (x * s / 1000 for x, s in zip(box, (width, height, width, height), strict=True))
        ids = {"image_id": pictures.index(r["record_id"]) + 7, "category_id": categories.index(r["asked"]) + 3}
        return {**ids, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}

    gold = [place(r, box) for r in rows for box in r["gold"]]
    data = {
        "images": [{"id": i + 7} for i in range(len(pictures))],
        "categories": [{"id": i + 3} for i in range(len(categories))],
        "annotations": [{**g, "id": i + 1} for i, g in enumerate(gold)],
    }
    found = [{**place(r, b), "score": c} for r in rows for b, c in zip(r["boxes"], r["confidences"], strict=True)]
    (tmp_path / "gold.json").write_text(json.dumps(data))
    (tmp_path / "found.json").write_text(json.dumps(found))
    coco = COCO(str(tmp_path / "gold.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(("ap", "ap50", "ap75"), evaluation.stats, strict=False))


@pytest.mark.parametrize("seed", range(20))
def test_parity_with_pycocotools(seed, tmp_path):
    rows = random_rows(np.random.default_rng(seed))
    expected = reference(rows, tmp_path)
    assert 0.05 < expected["ap"] < expected["ap50"] < 1
    found = detection_ap(rows)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_mean_over_categories_is_ap():
    rows = [row("p", "one", [A], (A, 1.0)), row("p", "two", [B]), row("p", "three", [], (B, 1.0))]
    assert detection_ap(rows)["ap_by_category"] == pytest.approx({"one": 1, "two": 0})
    found = detection_ap(random_rows(np.random.default_rng(3)))
    assert np.mean(list(found["ap_by_category"].values())) == pytest.approx(found["ap"], abs=1e-12)


def test_order_of_rows_does_not_matter_even_with_equal_scores():
    rng = np.random.default_rng(0)
    rows = [{**r, "confidences": [0.5] * len(r["boxes"])} for r in random_rows(rng)]
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    assert detection_ap(shuffled) == detection_ap(rows)


def resampled(rows, counts):
    """The set in which a picture stands as often as it was drawn, under names of its own."""
    names = sorted({r["record_id"] for r in rows})
    return [
        {**r, "record_id": f"{r['record_id']}-{copy}"}
        for name, count in zip(names, counts, strict=True)
        for copy in range(count)
        for r in rows
        if r["record_id"] == name
    ]


@pytest.mark.parametrize("seed", range(5))
def test_resamples_are_what_pycocotools_says_of_the_resampled_set(seed, tmp_path):
    """Pictures drawn twice, and not at all; a category may lose all its gold."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, num_pictures=6, categories=("cat", "dog", "bus", "ox"))
    matches = match(rows)
    counts = rng.multinomial(5, np.full(len(matches.questions), 1 / len(matches.questions)), size=8)
    found = mean_ap(average_precision(matches, counts))
    for i, drawn in enumerate(counts):
        expected = reference(resampled(rows, drawn), tmp_path)
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, abs=1e-9)


def test_more_than_a_hundred_detections_of_a_picture():
    """COCO looks at the 100 surest: the right one, less sure than 100 wrong ones, is not among them."""
    surest = [(FAR, 0.9)] * 99
    assert detection_ap([row("p", "one", [A], *surest, (A, 0.5))])["ap"] == pytest.approx(0.01)
    assert detection_ap([row("p", "one", [A], *surest, (FAR, 0.8), (A, 0.5))])["ap"] == 0


def test_a_category_without_gold_in_a_resample_is_no_number():
    matches = match([row("p", "one", [A], (A, 1.0)), row("q", "two", [B]), row("q", "three", [])])
    ap = average_precision(matches, np.array([[2, 0], [0, 1]]))
    assert matches.categories == ("one", "three", "two")
    assert ap[0, :, 0].tolist() == [1, pytest.approx(np.nan, nan_ok=True), pytest.approx(np.nan, nan_ok=True)]
    assert np.isnan(ap[1, :2]).all() and (ap[1, 2] == 0).all()


def test_it_prints_nothing(capsys):
    detection_ap([row("p", "one", [A], (A, 1.0))])
    assert capsys.readouterr() == ("", "")


def test_unusable_rows_are_refused():
    with pytest.raises(ValueError, match="'p' has two predictions for 'one'"):
        detection_ap([row("p", "one", [A]), row("q", "one", [A]), row("p", "one", [B])])
    with pytest.raises(ValueError, match="no gold box in 1 predictions"):
        detection_ap([row("p", "one", [], (A, 1.0))])
    with pytest.raises(ValueError, match="no gold box in 0 predictions"):
        detection_ap([])
