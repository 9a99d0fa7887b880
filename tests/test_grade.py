"""Which questions are asked and counted, by existence mode; the model is a table of answers here."""

import json
from pathlib import Path

import pytest

from tasks import grade as stage
from tasks.data.records import Object, Question, Record, write_jsonl
from tasks.graders.parse import format_answer
from tasks.params import load_params

BOX = (10.0, 10.0, 50.0, 50.0)
RECORDS = [Record("p", "p.png", 100, 100, "h1", (Object("cat", BOX), Object("dog", BOX)))]
RECORDS += [Record("q", "q.png", 100, 100, "h2", (Object("cat", BOX),))]
GOLD = format_answer([(100, 100, 500, 500)], [1.0])
NONE = format_answer([], [])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Grade a policy that states the gold box for `finds` and nothing else: (metrics, {pair: row}, pairs asked)."""
    write_jsonl(tmp_path / "test.jsonl", RECORDS)
    (tmp_path / "categories.json").write_text(json.dumps(["bird", "cat", "dog"]))
    (tmp_path / "pool.json").write_text(json.dumps({"frequency": {"bird": "f", "cat": "r"}}))
    monkeypatch.setattr(stage, "load_model", lambda *_: None)

    class Processor:
        image_processor = None

    monkeypatch.setattr(stage, "load_processor", lambda *_: Processor)

    def run(mode: str, finds: set, existence: Path | None = None, out: str = "base"):
        asked = []

        def answer(model, processor, prompt, questions, *_, **__):
            asked.extend((q.record_id, q.asked) for q in questions)
            return [GOLD if (q.record_id, q.asked) in finds else NONE for q in questions]

        monkeypatch.setattr(stage, "answer", answer)
        params = load_params()
        params = params.model_copy(update={"grade": params.grade.model_copy(update={"existence": mode})})
        metrics = stage.grade(params, tmp_path, None, tmp_path / out, existence)
        rows = [json.loads(line) for line in (tmp_path / out / "predictions.jsonl").read_text().splitlines()]
        return metrics, {(r["record_id"], r["asked"]): r for r in rows}, set(asked)

    run.existence = tmp_path / "base" / "existence.json"
    return run


TRUE = {("p", "cat"), ("p", "dog"), ("q", "cat")}
EVERY = {(picture, category) for picture in "pq" for category in ("bird", "cat", "dog")}


def test_ground_truth_and_all(run):
    for mode, pairs in (("ground_truth", TRUE), ("all", EVERY)):
        metrics, rows, asked = run(mode, TRUE)
        assert asked == set(rows) == pairs
        assert (metrics["existence"], metrics["reward"], metrics["ap"]) == (mode, 1, pytest.approx(1))
        assert metrics["ap_rare"] == pytest.approx(1) and "ap_frequent" not in metrics  # no picture shows a bird


def test_the_base_model_decides_for_every_policy(run):
    _, base, asked = run("model", {("p", "cat"), ("q", "bird")})
    assert asked == EVERY
    assert json.loads(run.existence.read_text()) == {"p": ["cat"], "q": ["bird"]}
    metrics, rows, asked = run("model", TRUE, run.existence, "sft")
    assert asked == {("p", "cat"), ("q", "bird")}
    assert set(rows) == set(base) == asked | TRUE  # absent and unseen: not counted
    missed = {pair for pair, row in rows.items() if row["failure"] == "not_asked"}
    assert missed == {("p", "dog"), ("q", "cat")}
    assert metrics["reward"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert metrics["ap50"] == pytest.approx((51 / 101 + 0) / 2)  # the recall is capped by the base model


def test_two_instructions_of_the_same_words_keep_their_own_rows():
    twins = [Question("p", "p.png", "grounding", "the cat", (box,)) for box in (BOX, (60.0, 60.0, 90.0, 90.0))]
    answered = {twins[0]: {"completion": "left"}, twins[1]: {"completion": "right"}}
    kept = stage.limited(twins, answered, {"p": []}, grader=None)
    assert [row["completion"] for row in kept] == ["left", "right"]


def test_other_modes_do_not_read_the_map(run):
    run("ground_truth", set())
    assert set(run("ground_truth", TRUE, run.existence, "sft")[1]) == TRUE
