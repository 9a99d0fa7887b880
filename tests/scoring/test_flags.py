"""Crowds and LVIS's lists, from a labels file to the study's AP: what pycocotools and the LVIS API say of the same."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.data.ingest import ingest
from tasks.data.questions import ask_all
from tasks.data.sources import READERS
from tasks.schema.dataset import CocoFiles
from tasks.scoring.coco import average_precision, detection_ap, match, mean_ap
from tasks.scoring.metrics import by_frequency

SIDE, NAMES = 200, ("ant", "bee", "cow", "dog", "eel", "fox")
FREQUENCY = {name: "rcf"[n % 3] for n, name in enumerate(NAMES)}


def made(seed: int, source: str) -> tuple[dict, list]:
    """Labels and detections (a few off, junk, some inside crowds; scores that tie) of ten pictures."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []

    def box() -> list[float]:
        return [*rng.integers(0, 100, 2).tolist(), *rng.integers(20, 90, 2).tolist()]

    for image in range(1, 11):
        ids = rng.permutation(np.arange(1, len(NAMES) + 1)).tolist()
        lists = {"neg_category_ids": ids[2:4], "not_exhaustive_category_ids": ids[:1] + ids[4:5]}
        named = {"file_name": f"{image}.png", "coco_url": f"http://host/images/{image}.png"}
        images.append({"id": image, "width": SIDE, "height": SIDE, **named, **(lists if source == "lvis" else {})})
        for category in ids[:2] * 2 + ids[2:3] * (source == "coco"):  # of the last, a crowd is all there is
            where = {"image_id": image, "category_id": category}
            crowd = source == "coco" and (category == ids[2] or rng.random() < 0.3)
            x, y, w, h = box()
            annotations.append({**where, "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(crowd)})
            for _ in range(3 if crowd else 1):
                moved = [x + int(rng.integers(0, 6)), y, w, h] if not crowd else [x + 2, y + 2, w // 2, h // 2]
                found.append({**where, "bbox": moved, "score": round(float(rng.random()), 1)})
        for category in ids:
            found.append({"image_id": image, "category_id": category, "bbox": box(), "score": round(rng.random(), 1)})
    labels = {
        "images": images,
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
        "categories": [{"id": n, "name": x, "frequency": FREQUENCY[x]} for n, x in enumerate(NAMES, start=1)],
    }
    return labels, found


def study_rows(
    source: str, labels: dict, found: list, folder: Path, chosen: tuple[str, ...] | None = None
) -> tuple[list[dict], dict[str, str]]:
    """What `grade.existence: all` asks of the files in a study of the `chosen` categories, each with the detections of
    its picture and category; and the frequencies that the reader found. Detections of pairs that nobody asks have no
    place.
    """
    for image in labels["images"]:  # no two pictures alike
        inside = folder / ("images" if source == "lvis" else "")
        inside.mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (image["id"], 0, 0)).save(inside / image["file_name"])
    (folder / "gt.json").write_text(json.dumps(labels))
    reading = READERS[source](CocoFiles(annotations=str(folder / "gt.json"), images=str(folder)), folder)
    split = ingest(reading, chosen, "", with_absent=True)
    rows = []
    for asked in ask_all([picture.record for picture in split.pictures], chosen or NAMES):
        own = [d for d in found if (str(d["image_id"]), NAMES[d["category_id"] - 1]) == (asked.record_id, asked.asked)]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (d["bbox"] for d in own)]
        rows.append({
            "record_id": f"{int(asked.record_id):03}", "asked": asked.asked, "gold": asked.boxes,
            "ignore": asked.ignore, "exhaustive": asked.exhaustive, "confidences": [d["score"] for d in own],
            "boxes": [[1000 * x / SIDE for x in box] for box in corners],
        })  # fmt: skip
    return rows, split.frequency


chosen_too = pytest.mark.parametrize("chosen", [None, ("bee", "eel"), ("fox",)], ids=["all", "two", "one"])


def ids_of(chosen: tuple[str, ...] | None) -> list[int]:
    return [n for n, name in enumerate(NAMES, start=1) if chosen is None or name in chosen]


@chosen_too
@pytest.mark.parametrize("seed", range(4))
def test_crowds_are_counted_as_by_pycocotools(tmp_path, seed, chosen):
    labels, found = made(seed, "coco")
    rows, _ = study_rows("coco", labels, found, tmp_path, chosen)
    (tmp_path / "dt.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO(str(tmp_path / "gt.json"))
        evaluation = COCOeval(gold, gold.loadRes(str(tmp_path / "dt.json")), "bbox")
        evaluation.params.catIds = ids_of(chosen)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = dict(zip(("ap", "ap50", "ap75"), evaluation.stats.tolist(), strict=False))
    assert 0.02 < expected["ap"] < 0.95
    assert {name: detection_ap(rows)[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    if chosen is None:
        blind = detection_ap([row | {"ignore": []} for row in rows])
        assert blind["ap"] < expected["ap"] - 0.01  # the crowds matter in this set
    else:
        assert_false_alarms_matter(rows, expected["ap"])


def assert_false_alarms_matter(rows: list[dict], ap: float) -> None:
    """Without the pictures that show no chosen category AP would be higher."""
    shown = {row["record_id"] for row in rows if row["gold"]}
    assert detection_ap([row for row in rows if row["record_id"] in shown])["ap"] > ap + 1e-3


@chosen_too
@pytest.mark.parametrize("seed", range(4))
def test_what_is_labelled_in_part_is_counted_as_by_the_lvis_api(tmp_path, monkeypatch, seed, chosen):
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 is older than numpy 2
    from lvis import LVIS, LVISEval

    labels, found = made(seed, "lvis")
    rows, frequency = study_rows("lvis", labels, found, tmp_path, chosen)
    (tmp_path / "dt.json").write_text(json.dumps(found))
    reference = LVISEval(LVIS(str(tmp_path / "gt.json")), str(tmp_path / "dt.json"), "bbox")
    reference.params.cat_ids = ids_of(chosen)
    reference.run()
    expected = {name: reference.results[key] for name, key in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"))}
    ours = detection_ap(rows)
    assert 0.02 < expected["ap"] < 0.95
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    if chosen is not None:
        assert_false_alarms_matter(rows, expected["ap"])
        return
    by_group = by_frequency(ours["ap_by_category"], frequency)
    assert by_group == pytest.approx(
        {f"ap_{name}": reference.results[f"AP{name[0]}"] for name in ("rare", "common", "frequent")}, abs=1e-9
    )
    strict = detection_ap([row | {"exhaustive": True} for row in rows])
    assert strict["ap"] < expected["ap"] - 0.005


def test_resamples_know_of_crowds_too(tmp_path):
    """A picture drawn twice counts as two pictures of the same labels."""
    labels, found = made(0, "coco")
    rows, _ = study_rows("coco", labels, [d | {"score": n / 1000} for n, d in enumerate(found)], tmp_path)
    drawn = [2, 0, 1, 1, 0, 3, 1, 1, 0, 1]
    twice = [
        row | {"record_id": f"{row['record_id']}-{copy}"}
        for row in rows
        for copy in range(drawn[int(row["record_id"]) - 1])
    ]
    found_by_counts = mean_ap(average_precision(match(rows), np.array([drawn])))["ap"]
    assert found_by_counts == pytest.approx([detection_ap(twice)["ap"]], abs=1e-3)  # copies tie
