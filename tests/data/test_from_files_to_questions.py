"""From a user's files to the questions of a slice, for the tasks that are not detection, and the benchmark's bounds."""

import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from tasks.data.records import Shape, read_questions
from tasks.params import Slice
from tasks.prepare import prepare
from tasks.schema.dataset import FolderDataset, HfDataset, LisaDataset
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
