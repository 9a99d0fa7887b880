"""prepare and slice on the embedded digits: the same on every machine, nested in k, without leakage."""

import shutil
from collections import Counter

import pytest

from tasks.data.digits import source_split, write_digits
from tasks.data.questions import ask, messages, question
from tasks.data.records import DataError, Object, Question, Record, read_questions, read_records, write_jsonl
from tasks.params import DigitsDataset, Prompt, Slice
from tasks.prepare import SPLITS, prepare
from tasks.slice import make_slice

DIGITS = DigitsDataset(source="digits", seed=0, num_train=120, num_val=10, num_test=20)
SLICE = Slice(num_absent=1, allow_fewer=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "pool"
    counts = prepare(DIGITS, out)
    assert {split: counts[split] for split in ("train", "val", "test")} == {"train": 120, "val": 10, "test": 20}
    assert (counts["categories"], counts["quarantined"], counts["used"]) == (10, 0, counts["read"])
    return out


def test_the_pool_is_reproduced_byte_for_byte(pool, tmp_path):
    prepare(DIGITS, tmp_path / "again")
    files = [p.relative_to(pool) for p in pool.rglob("*") if p.is_file()]
    assert len(files) > 150
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (pool / file).read_bytes(), file


def test_no_handwritten_digit_is_in_two_splits():
    splits = source_split(seed=0)
    indices = [set(split.tolist()) for split in splits.values()]
    assert sum(map(len, indices)) == len(set.union(*indices)) == 1797


def test_the_same_pixels_in_train_and_test_are_refused(tmp_path):
    files = write_digits(DIGITS, tmp_path)
    dataset = files.model_copy(update={"val": None, "num_val": 5})
    counts = prepare(dataset, tmp_path / "pool")
    assert (counts["train"], counts["val"], counts["test"]) == (115, 5, 20)
    shutil.copy(tmp_path / "train" / "images" / "00003.png", tmp_path / "test" / "images" / "00004.png")
    with pytest.raises(DataError, match=r"same pixels are in .*00003\.png.*00004\.png"):
        prepare(dataset, tmp_path / "leaky")
    without = prepare(dataset.model_copy(update={"leave_out_shared": True}), tmp_path / "without")
    assert (without["train"] + without["val"], without["test"]) == (119, 20)
    assert without["left_out"]["image"] == 1
    hashes = [{r.pixel_hash for r in read_records(tmp_path / "without" / f"{s}.jsonl")} for s in SPLITS]
    assert not (hashes[0] | hashes[1]) & hashes[2]


@pytest.mark.parametrize(
    ("task", "wanted"), [("detection", "seven"), ("classification", "seven"), ("grounding", "sentence")]
)
def test_the_categories_asked_for_are_those_of_the_embedded_data_too(tmp_path, task, wanted):
    digits = DIGITS.model_copy(update={"task": task, "num_test": 60, "categories": [wanted]})
    prepare(digits, tmp_path / "pool")
    shown = read_records(tmp_path / "pool" / "test.jsonl")
    names = {n for r in shown for n in (*r.categories, r.label, *(told.category for told in r.referring)) if n}
    assert names == {wanted}


def slice_of(pool, tmp_path, k, seed=0, params=SLICE):
    out = tmp_path / f"{k}-{seed}-{len(list(tmp_path.iterdir()))}"
    manifest = make_slice(params, pool, k, seed, out)
    return manifest, read_questions(out / "train.jsonl"), read_questions(out / "val.jsonl")


def test_slices_are_nested_and_hold_k_pictures_a_category_or_more(pool, tmp_path):
    smaller: set = set()
    for k in (1, 2, 4):
        manifest, train, _ = slice_of(pool, tmp_path, k)
        shown = {(q.record_id, q.asked) for q in train if q.boxes}
        asked = Counter(category for _, category in shown)
        assert len(asked) == 10 and min(asked.values()) >= k
        assert manifest["train"]["num_pictures"] <= 10 * k
        assert sum(not q.boxes for q in train) == manifest["train"]["num_pictures"]  # one absent category a picture
        assert smaller <= shown
        smaller = shown


def test_a_slice_does_not_depend_on_the_order_of_the_file(pool, tmp_path):
    shuffled = tmp_path / "pool"
    shutil.copytree(pool, shuffled)
    write_jsonl(shuffled / "train.jsonl", reversed(read_records(pool / "train.jsonl")))
    assert slice_of(shuffled, tmp_path, 2)[0] == slice_of(pool, tmp_path, 2)[0]
    assert (
        slice_of(pool, tmp_path, 2, seed=1)[0]["train"]["sha256"] != slice_of(pool, tmp_path, 2)[0]["train"]["sha256"]
    )


def test_k_too_large_is_refused_with_have_and_need(pool, tmp_path):
    with pytest.raises(DataError, match=r"eight: have \d+, need 500"):
        slice_of(pool, tmp_path, 500)
    _, train, _ = slice_of(pool, tmp_path, 500, params=Slice(num_absent=0, allow_fewer=True))
    assert len(train) == sum(len(r.categories) for r in read_records(pool / "train.jsonl"))


def test_gold_boxes_are_thousandths_in_reading_order():
    objects = (Object("cat", (100, 0, 200, 50)), Object("dog", (0, 0, 50, 50)), Object("cat", (0, 10, 20, 30)))
    record = Record("r", "r.png", 200, 100, "hash", objects)
    q = question(record, "cat")
    assert q.boxes == ((0, 100, 100, 300), (500, 0, 1000, 500))
    assert q.thoughts == ("dog [0, 0], cat [0, 100], cat [500, 0]; cat [0, 100], cat [500, 0]",)
    assert question(record, "fox").thoughts[0].endswith("; No fox")
    assert [x.asked for x in ask([record], ["cat", "dog", "fox", "hen"], 1)][:2] == ["dog", "cat"]
    assert ask([record], ["cat", "dog", "fox"], 5)[-1].boxes == ()


def test_a_prompt_may_hold_other_braces():
    prompt = Prompt(detection="{asked}: [{'Position': ...}]", grounding="{asked}", classification="?")
    text = messages(prompt, Question("r", "r.png", "detection", "cat"))[0]["content"][1]["text"]
    assert text == "cat: [{'Position': ...}]"


@pytest.mark.parametrize(
    ("task", "source", "asked"),
    [
        ("open_vocabulary", "coco", {"red seven", "blue one"}),
        ("classification", "folder", {""}),
        ("grounding", "lisa", {"the largest digit", "the digit that is the sum of one and two"}),
    ],
)
def test_the_embedded_tasks_take_the_readers_path_of_user_data(tmp_path, task, source, asked):
    digits = DIGITS.model_copy(update={"task": task})
    assert write_digits(digits, tmp_path / "files").source == source
    counts = prepare(digits, tmp_path / "pool")
    assert counts["used"] == counts["read"] and counts["test"] > 15
    assert asked <= {q.asked for q in ask(read_records(tmp_path / "pool" / "train.jsonl"), [], 0)}


def test_open_vocabulary_learns_base_categories_and_asks_novel_ones(tmp_path):
    novel = {"test_categories": ["red seven", "blue one"], "categories": ["green two", "black three", "red one"]}
    prepare(DIGITS.model_copy(update={"task": "open_vocabulary", "num_test": 60, **novel}), tmp_path / "pool")
    for split, names in (("train", novel["categories"]), ("test", novel["test_categories"])):
        shown = {c for r in read_records(tmp_path / "pool" / f"{split}.jsonl") for c in r.categories}
        assert shown == set(names)
