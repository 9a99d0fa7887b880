"""From a user's files to the questions of a slice, for the tasks that are not detection, and the benchmark's bounds."""

import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from tasks.data.questions import ask_all
from tasks.data.records import Shape, read_questions, read_records
from tasks.params import Slice
from tasks.prepare import prepare
from tasks.schema.dataset import FolderDataset, HfDataset, LisaDataset, LvisDataset
from tasks.slice import make_slice

datasets.disable_progress_bars()


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(path)


def sliced(dataset, tmp_path, k):
    summary = prepare(dataset, tmp_path / "pool")
    manifest = make_slice(Slice(), tmp_path / "pool", k, 0, tmp_path / "slice")
    return summary, manifest, read_questions(tmp_path / "slice" / "train.jsonl")


def test_class_folders(tmp_path):
    for n in range(30):
        draw(tmp_path / "cats" / ("tabby", "manx")[n % 2] / f"{n}.jpg", n)
    dataset = FolderDataset(source="folder", train={"images": str(tmp_path / "cats")})
    summary, _, train = sliced(dataset, tmp_path, 3)
    assert (summary["train"], summary["val"], summary["test"], summary["categories"]) == (22, 2, 6, 2)
    assert sorted((q.task, q.label) for q in train) == [("classification", c) for c in ("manx",) * 3 + ("tabby",) * 3]
    assert all((tmp_path / "pool" / q.image).is_file() for q in train)


def test_lisa(tmp_path):
    shape = {"label": "target", "points": [[0, 0], [32, 0], [32, 24]], "shape_type": "polygon"}
    for split, first in (("train", 0), ("test", 20)):
        for n in range(first, first + 12):
            draw(tmp_path / split / f"{n}.jpg", n)
            row = {"text": [f"what is {n}?"], "is_sentence": n % 3 > 0, "shapes": [shape]}
            (tmp_path / split / f"{n}.json").write_text(json.dumps(row))
    files = {split: {"images": str(tmp_path / split)} for split in ("train", "test")}
    summary, manifest, train = sliced(LisaDataset(source="lisa", **files, num_val=2), tmp_path, 2)
    assert (summary["train"], summary["val"], summary["test"], summary["categories"]) == (10, 2, 12, 0)
    assert {kind: len(ids) for kind, ids in manifest["chosen"].items()} == {"phrase": 2, "sentence": 2}
    mask = (Shape(((0.0, 0.0), (500.0, 0.0), (500.0, 500.0))),)
    assert {(q.task, q.boxes, q.mask) for q in train} == {("grounding", ((0.0, 0.0, 500.0, 500.0),), mask)}


def write_lvis(folder, first, num):
    """Of `num` pictures every third shows a die, every third is known not to, of the others nothing is known."""
    for n in range(first, first + num):
        draw(folder / "images" / f"{n}.jpg", n)
    images = [
        {"id": n, "coco_url": f"http://host/images/{n}.jpg", "width": 64, "height": 48,
         "neg_category_ids": [1] * (n % 3 == 1), "not_exhaustive_category_ids": []} for n in range(first, first + num)
    ]  # fmt: skip
    annotations = [
        {"id": 100 + n, "image_id": n, "category_id": 1 if n % 3 == 0 else 2, "bbox": [1, 2, 30, 20], "area": 600}
        for n in range(first, first + num)
    ]
    categories = [{"id": 1, "name": "die", "frequency": "r"}, {"id": 2, "name": "cow", "frequency": "f"}]
    (folder / "gt.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return {"annotations": str(folder / "gt.json"), "images": str(folder)}


@pytest.mark.parametrize(("num", "tested"), [(None, 4), (2, 2)])
def test_false_alarms_are_asked_for_chosen_categories(tmp_path, num, tested):
    files = {split: write_lvis(tmp_path / split, *at) for split, at in (("train", (0, 30)), ("test", (30, 12)))}
    dataset = LvisDataset(source="lvis", **files, categories=["die"], num_val=2, num_test=num)
    summary = prepare(dataset, tmp_path / "pool")
    asked = ask_all(read_records(tmp_path / "pool" / "test.jsonl"), ["die"])
    shown = [question for question in asked if question.boxes]
    assert (len(shown), summary["test"]) == (tested, len(asked))
    assert len(asked) == 8 if num is None else tested <= len(asked) < 8
    assert (summary["train"], summary["val"]) == (8, 2)
    used, read, left_out = (summary[name]["image"] for name in ("used", "read", "left_out"))
    assert (read, left_out) == (42, 42 - used) and used == 10 + summary["test"]


def test_false_alarms_are_asked_where_test_is_held_out_of_train(tmp_path):
    dataset = LvisDataset(source="lvis", train=write_lvis(tmp_path, 0, 60), categories=["die"])
    summary = prepare(dataset, tmp_path / "pool")
    records = {split: read_records(tmp_path / "pool" / f"{split}.jsonl") for split in ("train", "val", "test")}
    assert {split: sum(bool(r.objects) for r in rows) for split, rows in records.items()} == {
        "train": 15, "val": 1, "test": 4,
    }  # fmt: skip
    assert len(records["train"]) == 15 and len(records["val"]) == 1 and len(records["test"]) > 4
    assert summary["used"]["image"] + summary["left_out"]["image"] == 60
    assert summary["used"]["annotation"] + summary["left_out"]["annotation"] == 60


def test_a_hugging_face_set_of_pictures_in_memory(tmp_path):
    for n in range(20):
        draw(tmp_path / f"{n}.png", n)
    cells = [{"bytes": (tmp_path / f"{n}.png").read_bytes(), "path": None} for n in range(20)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = datasets.Dataset.from_dict({"img": cells, "label": [n % 2 for n in range(20)]}, features=features)
    rows.save_to_disk(tmp_path / "set")
    files = {"path": str(tmp_path / "set"), "split": "train", "image": "img", "label": "label"}
    _, _, train = sliced(HfDataset(source="hf", train=files), tmp_path, 2)
    assert sorted(q.label for q in train) == ["x", "x", "y", "y"]
    with Image.open(tmp_path / "pool" / train[0].image) as picture:
        assert picture.size == (64, 48)


@pytest.mark.slow
def test_a_hundred_thousand_annotations_take_less_than_a_minute_of_one_core_and_a_gigabyte():
    command = [sys.executable, "-m", "benchmarks.prepare", "--annotations", "100000", "--pictures", "20000"]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert figures["cpu_seconds"] < 60  # wall-clock seconds depend on what else runs
    assert figures["peak_mb"] < 1024
    assert figures["summary"]["used"] == {"image": 20_000, "annotation": 100_000}
