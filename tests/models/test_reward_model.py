"""ReFT's reward model on a text model of random weights: what it learns, keeps and chooses."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tasks.data.records import Question, write_jsonl
from tasks.graders import Grade
from tasks.graders.batch import InvalidRewards
from tasks.models import reward_model
from tasks.models.reward_model import Chain, RewardModel, sample_chains
from tasks.models.training import Job
from tasks.params import Slice, WordsDataset, load_params
from tasks.prepare import prepare
from tasks.rerank import choose, rerank
from tasks.schema.reward import RewardModel as Settings
from tasks.slice import make_slice

SETTINGS = Settings(samples=3, epochs=3, batch_size=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    tokenizer = AutoTokenizer.from_pretrained("models/tiny")
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        head_dim=8, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stories")
    sizes = {"num_train": 12, "num_val": 4, "num_test": 3}
    prepare(WordsDataset(source="words", task="stories", seed=0, num_steps=[2, 4], **sizes), folder / "pool")
    make_slice(Slice(), folder / "pool", 8, 0, folder / "slice")
    return folder


@pytest.fixture
def job(data, text_model) -> Job:
    params = load_params()
    changed = {"reward_model": SETTINGS, "model": params.model.model_copy(update={"path": str(text_model)})}
    return Job(params.model_copy(update=changed), "grpo", data / "pool", data / "slice", None, 0)


def says(number: object) -> str:
    return f"<think></think><answer>{number}</answer>"


def chains(questions) -> list[Chain]:
    """Of each question an answer that ends in 'seven', which is right, and one in 'two'."""
    return [Chain(q, f"it is {word}", word == "seven") for q in questions for word in ("two", "seven")]


def test_it_learns_to_tell_right_from_wrong_on_other_questions(job):
    model = RewardModel(job)
    before = model.score(job.val, ["it is seven"] * len(job.val))
    rows = model.fit(chains(job.train), chains(job.val), SETTINGS)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["val_rerank"] == 1 and rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    after = [model.score(job.val, [f"it is {word}"] * len(job.val)) for word in ("seven", "two")]
    assert all(right > 0 > wrong for right, wrong in zip(*after, strict=True))
    assert after[0] != before


def test_the_epoch_that_chooses_best_on_val_is_kept(job, monkeypatch):
    told = iter([{"val_rerank": 0.5, "val_loss": 0.3}, {"val_rerank": 0.75, "val_loss": 0.6}] * 2)
    kept = []

    def validate(self, val):
        kept.append(self.score(job.val, ["it is two"] * len(job.val)))
        return next(told)

    monkeypatch.setattr(RewardModel, "_validate", validate)
    model = RewardModel(job)
    model.fit(chains(job.train), chains(job.val), SETTINGS.model_copy(update={"epochs": 3}))
    assert model.score(job.val, ["it is two"] * len(job.val)) == kept[1]
    assert kept[1] != kept[2]


def test_a_score_does_not_depend_on_what_stands_beside_it(job):
    model = RewardModel(job)
    questions, texts = job.val[:3], ["seven", "it is seven, is it not, after all", "two and two"]
    together = model.score(questions, texts)
    alone = [model.score([q], [text])[0] for q, text in zip(questions, texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 3


@pytest.mark.parametrize("right", [True, False])
def test_chains_of_one_kind_teach_nothing(job, right):
    same = [Chain(question, "it is two", right) for question in job.train]
    with pytest.raises(ValueError, match=f"{8 * right} of 8 sampled chains are right"):
        RewardModel(job).fit(same, same, SETTINGS)


def test_chains_that_nobody_could_grade_are_not_wrong(job, monkeypatch):
    monkeypatch.setattr(reward_model, "answer", lambda *args, **kwargs: [f"it is {n}" for n in range(3 * 8)])
    down, right = Grade(0.0, {"answer": 0.0}, None, invalid="sandbox: down"), Grade(1.0, {"answer": 1.0}, None)
    grades = iter([down] + [right] * 23)
    job.grader = lambda text, question: next(grades)
    assert [chain.text for chain in sample_chains(job, None, job.train, 3)] == [f"it is {n}" for n in range(1, 24)]
    job.grader = lambda text, question: down
    with pytest.raises(InvalidRewards, match="sandbox: down"):
        sample_chains(job, None, job.train, 3)


def test_chains_are_labelled_by_the_grader_and_stand_once(job, monkeypatch):
    def answer(model, processor, prompt, asked, *args, **kwargs):
        assert (kwargs["temperature"], kwargs["samples"]) == (job.params.grade.temperature, 3)
        return [text for q in job.train for text in (says(q.label), says(q.label), "nonsense")]

    monkeypatch.setattr(reward_model, "answer", answer)
    found = sample_chains(job, None, job.train, 3)
    assert found[:2] == [Chain(job.train[0], says(job.train[0].label), True), Chain(job.train[0], "nonsense", False)]
    assert len(found) == 2 * len(job.train)


class Likes:
    """Scores an answer by its length."""

    def score(self, questions, texts):
        return [float(len(text)) for text in texts]


def test_the_sample_with_the_highest_score_is_chosen():
    row = {"record_id": "p", "task": "maths", "asked": "how many?"}
    samples = [
        row | {"completions": ["a", "abc", "ab"], "stated": ["7", None, "8"], "right": [False, False, True]},
        row | {"completions": ["a", "ab"], "stated": ["7", "8"], "right": [True, False]},
        row | {"completions": ["a"], "stated": [None], "right": [False]},
    ]
    chosen = choose(Likes(), samples)
    assert [(c["completion"], c["score"], c["right"]) for c in chosen] == [
        ("ab", 2.0, True), ("ab", 2.0, False), (None, None, False),
    ]  # fmt: skip


def test_the_stage(job, text_model, tmp_path, monkeypatch):
    """From samples of the warm-up, which are made up here, to the chosen answers."""

    def answer(model, processor, prompt, asked: list[Question], *args, **kwargs):
        assert kwargs["samples"] == SETTINGS.samples
        return [text for q in asked for text in (says("none"), says(q.label), says(q.label))]

    monkeypatch.setattr(reward_model, "answer", answer)
    row = {"record_id": "p", "task": "maths", "asked": "how many?", "completions": [says(7), says(8)]}
    write_jsonl(tmp_path / "samples.jsonl", [row | {"stated": ["7", "8"], "right": [True, True]}])
    metrics = rerank(job, text_model, tmp_path / "samples.jsonl", tmp_path)
    assert (metrics["rerank"], metrics["num_chains"], metrics["num_right"]) == (1, 16, 8)
    assert len(metrics["epochs"]) == 3
    (chosen,) = map(json.loads, (tmp_path / "rerank.jsonl").read_text().splitlines())
    assert chosen["completion"] in row["completions"] and chosen["right"]
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"samples\.jsonl is empty"):
        rerank(job, text_model, tmp_path / "samples.jsonl", tmp_path)
