"""`python -m tasks.scoring`: parity with pycocotools and with the LVIS API, and what either gets wrong in silence."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.scoring.__main__ import main
from tasks.scoring.files import COCO_NAMES, ScoringError, coco, lvis

NUM_IMAGES, NUM_CATEGORIES = 12, 6


def made(seed: int) -> tuple[dict, list]:
    """Boxes of every size, moved detections, junk, crowds; LVIS's keys; scores on a coarse grid, so that some tie."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for image in range(1, NUM_IMAGES + 1):
        categories = rng.permutation(np.arange(1, NUM_CATEGORIES + 1)).tolist()
        present, negative, unknown = categories[:2], categories[2:4], categories[4:]
        lists = {"neg_category_ids": negative, "not_exhaustive_category_ids": present[:1] + unknown[:1]}
        images.append({"id": image, "width": 640, "height": 480, **lists})
        for category in present:
            for _ in range(rng.integers(1, 4)):
                side = float(rng.choice([20, 60, 150]))
                x, y = rng.uniform(0, 300, 2).tolist()
                box = [x, y, side, side * float(rng.uniform(0.6, 1.4))]
                place = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
                crowd = int(rng.random() < 0.1)
                annotations.append({"id": len(annotations) + 1, **place, "iscrowd": crowd})
                moved = [v + float(d) for v, d in zip(box, rng.uniform(-0.1, 0.1, 4) * side, strict=True)]
                if rng.random() < 0.85:
                    found.append({**place, "bbox": moved, "score": round(float(rng.random()), 1)})
        for category in categories:  # false alarms: in present, negative and unknown categories
            box = rng.uniform(0, 300, 2).tolist() + rng.uniform(10, 200, 2).tolist()
            found.append({"image_id": image, "category_id": category, "bbox": box, "score": round(rng.random(), 1)})
    names = [{"id": i, "name": str(i), "frequency": "rcf"[i % 3]} for i in range(1, NUM_CATEGORIES + 1)]
    return {"images": images, "categories": names, "annotations": annotations}, [
        {k: row[k] for k in ("image_id", "category_id", "bbox", "score")} for row in found
    ]


@pytest.fixture
def write(tmp_path):
    def write(labels, found):
        for name, content in (("gt", labels), ("dt", found)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path / "gt.json", tmp_path / "dt.json"

    return write


@pytest.mark.parametrize("seed", range(12))
def test_the_twelve_numbers_are_those_of_pycocotools(write, seed):
    gt, dt = write(*made(seed))
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(str(gt))
        evaluation = COCOeval(labels, labels.loadRes(str(dt)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 0.9
    assert list(coco(gt, dt).values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_lvis_numbers_are_those_of_the_lvis_api(write, monkeypatch, seed):
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 is older than numpy 2
    from lvis import LVIS, LVISEval

    labels, found = made(seed)
    for annotation in labels["annotations"]:
        del annotation["iscrowd"]  # LVIS has no crowds
    if seed == 0:  # more than the 300 that count
        found += [{**found[n % len(found)], "image_id": 1, "score": n / 1000} for n in range(400)]
    gt, dt = write(labels, found)
    reference = LVISEval(LVIS(str(gt)), str(dt), "bbox")
    reference.run()
    assert 0.1 < reference.results["AP"] < 0.9
    assert lvis(gt, dt) == pytest.approx(dict(reference.results), abs=1e-9)


def test_lvis_is_federated(write):
    """A false alarm counts in a negative category, not in an unknown one nor in one that is not exhaustive."""
    box, away = [10, 10, 50, 50], [300, 300, 50, 50]
    names = [{"id": i, "name": str(i), "frequency": "f"} for i in (1, 2)]

    def ap(**lists):
        images = [
            {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []},
            {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": [], **lists},
        ]
        here = {"image_id": 1, "category_id": 1, "bbox": box}
        labels = {"images": images, "categories": names, "annotations": [{"id": 1, **here}]}
        found = [{**here, "score": 0.5}, {"image_id": 2, "category_id": 1, "bbox": away, "score": 0.9}]
        return lvis(*write(labels, found))["AP"]

    assert ap() == pytest.approx(1)
    assert ap(neg_category_ids=[1]) == pytest.approx(0.5)
    assert ap(neg_category_ids=[1], not_exhaustive_category_ids=[1]) == pytest.approx(1)


def test_what_pycocotools_gets_wrong_in_silence(write):
    labels, found = made(0)
    right = coco(*write(labels, found))
    shifted = [{**a, "id": a["id"] - 1} for a in labels["annotations"]]
    assert coco(*write({**labels, "annotations": shifted}, found)) == right  # an id 0
    bare = [{k: v for k, v in a.items() if k != "area"} for a in labels["annotations"]]
    assert coco(*write({**labels, "annotations": bare}, found)) == right
    assert coco(*write(labels, []))["AP"] == 0  # loadRes: IndexError
    assert lvis(*write(labels, []))["AP"] == 0


def broken(change):
    labels, found = made(0)
    change(labels, found)
    return labels, found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gt, dt: dt[3].update(image_id=99), "detection 3: image_id 99"),
        (lambda gt, dt: dt[3].update(category_id="1"), "detection 3: category_id '1'"),
        (lambda gt, dt: dt[3].update(bbox=[1, 2, 3]), r"detection 3: bbox \[1, 2, 3\]"),
        (lambda gt, dt: dt[3].update(bbox=[1, 2, -3, 4]), "negative side"),
        (lambda gt, dt: dt[3].update(score=float("nan")), "detection 3: score nan"),
        (lambda gt, dt: dt[3].pop("score"), "detection 3: score None"),
        (lambda gt, dt: dt.insert(0, 7), "detection 0: 7 is no object"),
        (lambda gt, dt: gt["annotations"][1].update(id=1), "annotations with the same id"),
        (lambda gt, dt: gt["annotations"][1].update(bbox=[1, 2, 3, float("inf")]), "annotation 2"),
        (lambda gt, dt: gt.pop("images"), "has no images"),
        (lambda gt, dt: gt["images"][2].pop("id"), r"gt.json: images\[2\] has no id: .*give each a number of its own"),
        (lambda gt, dt: gt["categories"][0].pop("id"), r"gt.json: categories\[0\] has no id"),
        (lambda gt, dt: gt["annotations"][3].pop("id"), r"gt.json: annotations\[3\] has no id"),
        (lambda gt, dt: gt["annotations"].insert(0, 7), r"gt.json: annotations\[0\] has no id: 7"),
        (lambda gt, dt: gt["images"][0].update(id=[1]), r"images\[0\] has no id"),
        (lambda gt, dt: gt.update(images=None), "gt.json: images is None, where a list is wanted"),
        (lambda gt, dt: gt["annotations"][1].update(bbox=[1, 2, 3, 10**400]), "gt.json: annotation 2: bbox .*mend it"),
        (lambda gt, dt: gt["annotations"][1].update(area=None), "gt.json: annotation 2: area None .*leave it out"),
        (lambda gt, dt: gt["annotations"][1].update(area="9"), "gt.json: annotation 2: area '9'"),
        (lambda gt, dt: gt["annotations"][1].update(iscrowd=None), "gt.json: annotation 2: iscrowd None"),
        (lambda gt, dt: dt[3].update(bbox=[1, 2, 3, 10**400]), "detection 3: bbox"),
        (lambda gt, dt: dt[3].update(score=10**400), "detection 3: score"),
    ],
)
def test_what_cannot_be_scored_is_named(write, change, message):
    files = write(*broken(change))
    with pytest.raises(ScoringError, match=message):
        coco(*files)


def test_lvis_needs_its_lists(write):
    labels, found = broken(lambda gt, dt: gt["images"][0].pop("neg_category_ids"))
    with pytest.raises(ScoringError, match="image 1 has no neg_category_ids"):
        lvis(*write(labels, found))
    labels, found = broken(lambda gt, dt: gt["images"][0].update(neg_category_ids=None))
    with pytest.raises(ScoringError, match="image 1: neg_category_ids None is no list"):
        lvis(*write(labels, found))


def test_the_command(write, tmp_path, capsys):
    gt, dt = write(*made(1))
    assert main(["coco", "--gt", str(gt), "--dt", str(dt)]) == 0
    assert tuple(json.loads(capsys.readouterr().out)) == COCO_NAMES
    assert main(["lvis", "--gt", str(gt), "--dt", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
