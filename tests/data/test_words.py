"""The embedded problems in words: written as their real twins come, read back, disjoint by their words."""

import itertools
import json

import pytest

from tasks.data.questions import ask
from tasks.data.records import DataError, read_questions, read_records
from tasks.data.words import write_words
from tasks.graders.target import targets
from tasks.params import ParamsError, Slice, WordsDataset, validate
from tasks.prepare import prepare
from tasks.slice import make_slice

SIZES = {"num_train": 60, "num_val": 10, "num_test": 20}


def words(task: str, **changes) -> WordsDataset:
    return WordsDataset(**{"source": "words", "task": task, "seed": 0, "num_steps": [2, 4], **SIZES, **changes})


@pytest.mark.parametrize(
    ("task", "source", "asked"),
    [("stories", "gsm8k", "maths"), ("programs", "problems", "program"), ("cases", "problems", "ranking")],
)
def test_the_embedded_problems_take_the_readers_path_of_user_data(tmp_path, task, source, asked):
    assert write_words(words(task), tmp_path / "files").source == source
    counts = prepare(words(task), tmp_path / "pool")
    assert counts["used"] == counts["read"] == {"image": 0, "problem": 90, "annotation": 0}
    assert {f"num_{split}": counts[split] for split in ("train", "val", "test")} == SIZES
    questions = ask(read_records(tmp_path / "pool" / "train.jsonl"), [], 0)
    assert {(q.task, q.image) for q in questions} == {(asked, None)}
    assert all(q.label and q.thoughts[0] and targets(q) for q in questions)
    prepare(words(task), tmp_path / "again")
    for file in ("train.jsonl", "val.jsonl", "test.jsonl", "pool.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "pool" / file).read_bytes()


def test_the_stories_are_in_the_form_of_gsm8k(tmp_path):
    write_words(words("stories"), tmp_path / "files")
    row = json.loads((tmp_path / "files" / "train.jsonl").read_text().splitlines()[0])
    assert row.keys() == {"question", "answer"}
    left, sign, right, _, marked, *_ = row["answer"].split()
    assert marked.startswith(f"<<{left}{sign}{right}=") and "\n#### " in row["answer"]


def test_splits_share_no_words_and_texts_that_run_out_are_said(tmp_path, monkeypatch):
    few = [{"question": text, "answer": "7"} for text in "abcdefgh"]
    monkeypatch.setattr("tasks.data.words._rows", lambda params, rng: itertools.cycle(few))
    sizes = {"num_train": 4, "num_val": 1, "num_test": 3}
    write_words(words("programs", **sizes), tmp_path / "files")
    files = [(tmp_path / "files" / f"{split}.jsonl").read_text().splitlines() for split in ("train", "val", "test")]
    assert sorted(json.loads(line)["question"] for lines in files for line in lines) == list("abcdefgh")
    with pytest.raises(DataError, match=r"dataset.num_test: only 3 different texts"):
        write_words(words("programs", **sizes | {"num_test": 4}), tmp_path / "many")


def test_the_same_words_in_train_and_test_are_refused(tmp_path):
    files = write_words(words("stories"), tmp_path / "files")
    first = (tmp_path / "files" / "train.jsonl").read_text().splitlines()[0]
    with (tmp_path / "files" / "test.jsonl").open("a") as file:
        file.write(first + "\n")
    with pytest.raises(DataError, match=r"same words are in .*train.jsonl: line 1\) .*test.jsonl: line 21\)"):
        prepare(files, tmp_path / "pool")


def test_k_counts_problems_and_slices_are_nested(tmp_path):
    prepare(words("programs"), tmp_path / "pool")
    chosen = []
    for k in (4, 16):
        manifest = make_slice(Slice(), tmp_path / "pool", k, 0, tmp_path / f"{k}")
        train = read_questions(tmp_path / f"{k}" / "train.jsonl")
        assert len(train) == manifest["train"]["num_questions"] == k
        chosen.append({q.record_id for q in train})
    assert chosen[0] < chosen[1]


def test_bad_steps_are_refused():
    with pytest.raises(ValueError, match=r"fewest, most"):
        words("stories", num_steps=[4, 2])
    with pytest.raises(ParamsError, match="dataset"):
        validate({"dataset": {"source": "words", "task": "poems"}}, "params.yaml")
