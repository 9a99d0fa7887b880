"""`python -m tasks.prepare` as a user runs it: every item accounted for, leaks refused, the summary on one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.command import files_of, parse_dataset
from tasks.data.records import DataError, read_records
from tasks.data.sources import READERS
from tasks.params import ParamsError
from tasks.prepare import prepare
from tasks.schema.dataset import CocoDataset, JsonlDataset


def picture(path, seed, size=(64, 48), quality=95):
    """Smooth random blobs: what a perceptual hash tells apart, and knows again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).resize(size).save(path, quality=quality)


@pytest.fixture
def coco(tmp_path):
    """Twenty pictures of a cat and a dog each; annotation 3 has no area, 4 no image, picture 20 does not exist."""
    images, annotations = [], []
    for n in range(1, 21):
        if n < 20:
            picture(tmp_path / "images" / f"{n}.jpg", n)
        images.append({"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48})
        for category in (1, 2):
            box = [category, 2, 10, 10 if (n, category) != (2, 1) else 0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n,
                    "category_id": category,
                    "bbox": box,
                    "area": 100,
                    "iscrowd": 0,
                }
            )
    annotations[3]["image_id"] = 999
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (tmp_path / "gt.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return tmp_path


def command(folder, *more):
    args = ["--source", "coco", "--annotations", "gt.json", "--images", "images", "--out", "pool", *more]
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-m", "tasks.prepare", *args], cwd=folder, env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip


def test_prepare_works_alone_and_its_summary_and_quarantine_account_for_every_item(coco):
    done = command(coco)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    summary = json.loads(done.stdout)
    assert summary["read"] == {"image": 20, "annotation": 40}
    assert summary["used"] == {"image": 19, "annotation": 36}
    assert summary["quarantined"] == 5
    assert (summary["train"], summary["val"], summary["test"]) == (15, 1, 3)
    assert summary["faults"]["annotation: its image is quarantined"] == 2
    assert "put aside: 1 annotation: box without area" in done.stderr
    rows = [json.loads(line) for line in (coco / "pool" / "quarantine.jsonl").read_text().splitlines()]
    assert {(r["kind"], r["item"], r["reason"]) for r in rows} == {
        ("annotation", "4", "no such image: 999"),
        ("annotation", "3", "box without area: [1, 2, 10, 0]"),
        ("image", "20", "no such picture: '20.jpg'"),
        ("annotation", "39", "its image is quarantined: 20"),
        ("annotation", "40", "its image is quarantined: 20"),
    }
    assert all(r["file"] == "gt.json" for r in rows)
    again = command(coco)
    assert again.returncode == 1
    assert "pool: exists already" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--categories", "zebra"], "no usable picture shows ['zebra']; the data has cat, dog"),
        (["--num-test", "0"], "num_test"),
        (["--num-test", "500"], "lower it"),
        (["--max-quarantined", "0.01"], "max_quarantined"),
        (["--annotations", "none.json"], "none.json: no such file"),
        (["--images", "none"], "none: no such folder"),
    ],
)
def test_a_bad_command_ends_with_one_line_that_names_the_value(coco, more, message):
    dataset = ["--annotations", str(coco / "gt.json"), "--images", str(coco / "images"), *more]
    with pytest.raises((DataError, ParamsError)) as error:
        prepare(parse_dataset("coco", dataset), coco / "pool")
    assert message in str(error.value)
    assert not (coco / "pool").exists()


def test_too_many_faults_are_an_error_that_leaves_the_list(coco):
    dataset = parse_dataset(
        "coco", ["--annotations", str(coco / "gt.json"), "--images", str(coco / "images"), "--max-quarantined", "0.06"]
    )
    with pytest.raises(DataError, match=r"4 of 40 annotation items .*pool\.quarantine\.jsonl"):
        prepare(dataset, coco / "pool")
    assert len((coco / "pool.quarantine.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("source", "words", "path"),
    [
        ("voc", ["--annotations", "a", "--images", "b"], "a"),
        ("yolo", ["--images", "a", "--labels", "b", "--names", "c"], "a"),
        ("folder", ["--images", "a"], "a"),
        ("flowers102", ["--root", "a", "--split", "train", "--names", "c"], "a"),
        ("hf", ["--path", "a", "--split", "train", "--box-format", "xyxy"], "a"),
    ],
)
def test_the_arguments_of_a_source_are_the_fields_of_its_files(source, words, path):
    dataset = parse_dataset(source, words)
    assert dataset.source == source
    assert path in dataset.train.model_dump().values()


def test_an_argument_that_the_source_does_not_have_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse_dataset("folder", ["--images", "a", "--labels", "b"])
    assert "--labels" in capsys.readouterr().err


def split_of(coco, chosen, name):
    """The COCO data set of some of the pictures."""
    gt = json.loads((coco / "gt.json").read_text())
    gt["images"] = [i for i in gt["images"] if i["id"] in chosen]
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] in chosen]
    (coco / name).write_text(json.dumps(gt))
    return {"annotations": str(coco / name), "images": str(coco / "images")}


def test_a_copy_in_another_size_and_quality_is_reported_as_a_near_duplicate(coco):
    picture(coco / "images" / "12.jpg", 5, size=(128, 96), quality=60)  # picture 5 again
    gt = json.loads((coco / "gt.json").read_text())
    gt["images"][11] |= {"width": 128, "height": 96}
    (coco / "gt.json").write_text(json.dumps(gt))
    train, test = split_of(coco, range(3, 11), "train.json"), split_of(coco, range(11, 20), "test.json")
    summary = prepare(CocoDataset(source="coco", train=train, test=test), coco / "pool")
    assert summary["near_duplicates"] == 1
    row = json.loads((coco / "pool" / "near_duplicates.jsonl").read_text())
    assert {row["test"], row.get("train", row.get("val"))} == {"12.jpg", "5.jpg"}


def test_twins_inside_a_split_are_one_picture_and_cannot_leak_through_what_is_held_out(tmp_path):
    rows = []
    for n in range(30):
        picture(tmp_path / "images" / f"{n}.png", n % 15)
        rows.append({"image": f"{n}.png", "label": "blob"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"rows": str(tmp_path / "rows.jsonl"), "images": str(tmp_path / "images")}
    with pytest.raises(DataError, match="15 of 30 image items"):
        prepare(JsonlDataset(source="jsonl", train=files), tmp_path / "pool")
    summary = prepare(JsonlDataset(source="jsonl", train=files, max_quarantined=0.5), tmp_path / "pool")
    assert summary["train"] + summary["val"] + summary["test"] == 15
    assert summary["faults"] == {"image: same pixels as another image of this split": 15}


def test_what_is_not_asked_for_is_left_out_and_counted(coco):
    train, test = split_of(coco, range(3, 11), "train.json"), split_of(coco, range(11, 20), "test.json")
    dataset = CocoDataset(
        source="coco", train=train, test=test, categories=["cat"], test_categories=["dog"], num_val=2, num_test=4
    )
    summary = prepare(dataset, coco / "pool")
    assert (summary["train"], summary["val"], summary["test"]) == (6, 2, 4)
    assert summary["used"] == {"image": 12, "annotation": 12}
    assert summary["left_out"] == {"image": 5, "annotation": 22}
    assert {c for r in read_records(coco / "pool" / "train.jsonl") for c in r.categories} == {"cat"}
    asked = {
        name: json.loads((coco / "pool" / f"{name}.json").read_text()) for name in ("categories", "categories_train")
    }
    assert asked == {"categories": ["dog"], "categories_train": ["cat"]}


@pytest.mark.parametrize("source", READERS)
def test_every_source_is_documented_and_has_an_example(source):
    root = Path(__file__).resolve().parents[2]
    row = next(row for row in (root / "docs/data.md").read_text().splitlines() if row.startswith(f"| `{source}` |"))
    examples = [f"source: {source}\n" in file.read_text() for file in (root / "conf/dataset").glob("*.yaml")]
    assert any(examples) or source == "openai"  # `flows.import_openai` writes that one for each job
    files = files_of(source).model_fields
    assert all(f"--{name}" in row for name, field in files.items() if field.is_required())
