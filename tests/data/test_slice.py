"""k-shot slices of every task, open vocabulary, federated labels: who is chosen, who is asked what."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.data.questions import absent, ask, other_questions
from tasks.data.records import DataError, Object, Record, Referring, read_questions, write_jsonl
from tasks.params import Slice
from tasks.slice import make_slice, only

BOX = (0.0, 0.0, 10.0, 10.0)


def record(n, **labels):
    return Record(f"r{n}", f"images/{n}.png", 20, 10, f"hash{n}", **labels)


def showing(n, *categories, **more):
    return record(n, objects=tuple(Object(c, BOX) for c in categories), **more)


def write_pool(folder, train, val, categories):
    folder.mkdir()
    for split, rows in (("train", train), ("val", val), ("test", [])):
        write_jsonl(folder / f"{split}.jsonl", rows)
    for name in ("categories", "categories_train"):
        (folder / f"{name}.json").write_text(json.dumps(categories))
    return folder


@pytest.fixture
def classes(tmp_path):
    train = [record(n, label=("rose", "lotus")[n % 2]) for n in range(12)]
    return write_pool(tmp_path / "pool", train, [record(99, label="rose")], ["lotus", "rose"])


@pytest.fixture
def animals(tmp_path):
    """Each of cat, dog and owl is alone in three pictures, and all are in one."""
    train = [showing(n, ("cat", "dog", "owl")[n % 3]) for n in range(9)] + [showing(9, "cat", "dog", "owl")]
    return write_pool(tmp_path / "pool", train, [showing(n, "cat", "owl") for n in (97, 98, 99)], ["cat", "dog", "owl"])


def test_classification_takes_k_of_each_class_nested_in_k(classes, tmp_path):
    smaller: set = set()
    for k in (1, 2, 6):
        manifest = make_slice(Slice(), classes, k, 0, tmp_path / f"{k}")
        train = read_questions(tmp_path / f"{k}" / "train.jsonl")
        assert sorted(q.label for q in train) == ["lotus"] * k + ["rose"] * k
        assert {(q.task, q.asked) for q in train} == {("classification", "")}
        assert smaller <= {q.record_id for q in train}
        smaller = {q.record_id for q in train}
        assert {c: len(ids) for c, ids in manifest["chosen"].items()} == {"lotus": k, "rose": k}
    with pytest.raises(DataError, match=r"lotus: have 6, need 7; rose: have 6, need 7"):
        make_slice(Slice(), classes, 7, 0, tmp_path / "7")
    assert len(make_slice(Slice(allow_fewer=True), classes, 7, 0, tmp_path / "7")["chosen"]["rose"]) == 6


@pytest.mark.parametrize(("kinds", "num"), [((None, None), 2), (("phrase", "sentence"), 4)])
def test_grounding_takes_k_pictures_of_each_kind_of_instruction_or_k_in_all(tmp_path, kinds, num):
    rows = [record(n, referring=(Referring(f"told {n}", BOX, kinds[n % 2]),)) for n in range(10)]
    pool = write_pool(tmp_path / "pool", rows, rows[:1], [])
    manifest = make_slice(Slice(), pool, 2, 0, tmp_path / "slice")
    train = read_questions(tmp_path / "slice" / "train.jsonl")
    assert len(train) == manifest["train"]["num_pictures"] == num
    assert {(q.task, q.boxes) for q in train} == {("grounding", ((0.0, 0.0, 500.0, 1000.0),))}
    assert all(q.asked.startswith("told ") for q in train)


def test_base_categories_are_all_that_train_and_val_ask_or_name(animals, tmp_path):
    manifest = make_slice(Slice(num_absent=2, categories=["cat", "dog"]), animals, 4, 0, tmp_path / "slice")
    for split in ("train", "val"):
        questions = read_questions(tmp_path / "slice" / f"{split}.jsonl")
        assert {q.asked for q in questions} <= {"cat", "dog"}
        assert not any("owl" in q.thoughts[0] for q in questions)
    assert sorted(manifest["chosen"]) == ["cat", "dog"]
    with pytest.raises(DataError, match=r"\['yak'\] not in .*categories_train\.json"):
        make_slice(Slice(categories=["yak"]), animals, 1, 0, tmp_path / "other")


def test_a_novel_class_is_not_turned_into_a_picture_without_objects():
    assert only(record(1, label="rose"), ["lotus"]) is None
    assert only(record(1, label="lotus"), ["lotus"]) == record(1, label="lotus")
    assert only(record(1), ["lotus"]) == record(1)


def test_nothing_is_asked_about_a_category_that_may_be_there_unlabelled():
    """LVIS: absent only where it was looked for; in part labelled, in a crowd or with a box put aside: not asked."""
    names = ["cat", "cow", "dog", "hen", "owl"]
    federated = showing(1, "cat", federated=True, negative=("owl",), not_exhaustive=("hen",))
    assert absent(federated, names, 5) == ["owl"]
    crowd = showing(1, "cat", ignore=(Object("cow", BOX),), not_exhaustive=("hen",))
    assert sorted(absent(crowd, names, 5)) == ["dog", "owl"]
    assert absent(record(1, label="rose"), names, 5) == []
    assert only(showing(1, "cat", "hen", not_exhaustive=("hen",)), names).categories == ("cat",)
    beside_a_crowd = showing(1, "cat", "cow", ignore=(Object("cow", BOX),))
    assert only(beside_a_crowd, names).categories == ("cat",)  # a box on the crowd would be punished


def test_a_picture_with_labels_for_every_task_is_asked_for_all():
    row = showing(1, "cat", label="kitchen", referring=(Referring("the one asleep", BOX),))
    assert [(q.task, q.asked, q.label, len(q.boxes)) for q in ask([row], ["cat", "dog"], 1)] == [
        ("detection", "cat", None, 1),
        ("detection", "dog", None, 0),
        ("classification", "", "kitchen", 0),
        ("grounding", "the one asleep", None, 1),
    ]
    assert {q.thoughts for q in other_questions(row)} == {("cat [0, 0]",)}


def test_the_manifest_is_the_same_bytes_whatever_the_order_of_the_files(animals, tmp_path):
    make_slice(Slice(), animals, 2, 0, tmp_path / "a")
    for split in ("train", "val"):
        file = animals / f"{split}.jsonl"
        file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    make_slice(Slice(), animals, 2, 0, tmp_path / "b")
    for name in ("manifest.json", "train.jsonl", "val.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_slice_works_alone_and_says_what_is_wrong_in_one_line(animals, tmp_path):
    def run(*words):
        env = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        command = [sys.executable, "-m", "tasks.slice", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    done = run("--pool", "pool", "--k", "4", "--seed", "0", "--out", "slice")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "slice" / "manifest.json").read_text())
    done = run("--pool", "pool", "--k", "50", "--seed", "0", "--out", "other")
    assert done.returncode == 1
    assert done.stderr.startswith("slice: too few examples for k = 50 (cat: have 4, need 50;")
    assert done.stderr.endswith("slice.allow_fewer=true, or --allow-fewer\n")
    again = run("--pool", "pool", "--k", "4", "--seed", "0", "--out", "slice")
    assert again.stderr == "slice: slice: exists already; remove it or give another --out\n"
    few = ("--allow-fewer", "--categories", "cat", "owl", "--num-absent", "1")
    done = run("--pool", "pool", "--k", "50", "--seed", "0", "--out", "few", *few)
    assert done.returncode == 0, done.stderr
    assert {name: len(ids) for name, ids in json.loads(done.stdout)["chosen"].items()} == {"cat": 4, "owl": 4}
    asked = read_questions(tmp_path / "few" / "train.jsonl")
    assert {q.asked for q in asked} == {"cat", "owl"} and not all(q.boxes for q in asked)
    assert "'0' is not a whole number" in run("--pool", "pool", "--k", "0", "--seed", "0", "--out", "x").stderr
    assert run("--pool", "none", "--k", "1", "--seed", "0", "--out", "x").stderr.startswith("slice: none/categories")
