"""Problems in words through every stage, on the shipped model of pictures and text and on a text model."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tasks import rft, sft
from tasks.grade import grade
from tasks.models.training import Job
from tasks.params import Grid, Params, Slice, WordsDataset, load_params
from tasks.prepare import prepare
from tasks.publish import pictures
from tasks.report import report
from tasks.slice import make_slice

pytestmark = pytest.mark.slow

FEW = {"steps": 2, "eval_steps": 2}
ROLLOUTS = {**FEW, "prompts_per_step": 2, "num_generations": 2, "max_completion_length": 24, "warmup_steps": 0}


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """{task: a pool and a slice of 4 problems}."""
    folders = {}
    for task in ("stories", "programs", "cases"):
        folders[task] = tmp_path_factory.mktemp(task)
        sizes = {"num_train": 12, "num_val": 2, "num_test": 3}
        dataset = WordsDataset(source="words", task=task, seed=0, num_steps=[2, 4], **sizes)
        prepare(dataset, folders[task] / "pool")
        make_slice(Slice(), folders[task] / "pool", 4, 0, folders[task] / "slice")
    return folders


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    """A Qwen3 of random weights with the shipped tokenizer."""
    folder = tmp_path_factory.mktemp("qwen3")
    tokenizer = AutoTokenizer.from_pretrained("models/tiny")
    tokenizer.save_pretrained(folder)
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    config = Qwen3Config(
        vocab_size=len(tokenizer), num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, **shape,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def small(model: Path | None, engine: str = "kshot") -> Params:
    params = load_params()
    changed = {
        "warmup": {**FEW, "epochs": None}, "sft": FEW, "rft": {**ROLLOUTS, "engine": engine},
        "grade": {"max_new_tokens": 64, "samples": 3}, "model": {"path": str(model)} if model else {},
    }  # fmt: skip
    sections = {name: getattr(params, name).model_copy(update=values) for name, values in changed.items()}
    return params.model_copy(update=sections)


def run_all(data: Path, model: Path | None, algorithms: list[str], out: Path) -> dict[str, dict]:
    """Warm-up, SFT, each algorithm, the metrics of all on the test problems, and the report."""
    params, metrics = small(model), {}
    policies, grades = out / "policies", out / "grades"
    for policy in ("warmup", "sft"):
        job = Job(params, policy, data / "pool", data / "slice", None, 0)
        sft.train(job, getattr(params, policy), policies / f"{policy}-4-0")
    for algorithm in algorithms:
        roll(data, params, algorithm, policies / "warmup-4-0", policies / f"{algorithm}-4-0")
    for policy in ("base", "sft", *algorithms):
        name, init = (policy, None) if policy == "base" else (f"{policy}-4-0", policies / f"{policy}-4-0")
        metrics[policy] = grade(params, data / "pool", init, grades / name, None)
        (grades / name / "metrics.json").write_text(json.dumps(metrics[policy]))
        assert pictures(grades / name / "predictions.jsonl", data / "pool", policy) == {}
    grid = Grid(k=[4], seed=[0], algorithm=algorithms, policy=["sft", *algorithms])
    report(params.model_copy(update={"grid": grid}), grades, policies, data / "pool", out / "report")
    assert "At k = 4" in (out / "report" / "summary.txt").read_text()
    return metrics


def roll(data: Path, params: Params, algorithm: str, init: Path, out: Path) -> None:
    job = Job(params, algorithm, data / "pool", data / "slice", init, 0)
    model, validation, steps = rft.ENGINES[params.rft.engine, algorithm](job)
    job.save(model, out, validation, steps)
    assert [row["step"] for row in json.loads((out / "history.json").read_text())["steps"]] == [1, 2]


@pytest.mark.parametrize("kind", ["pictures and text", "text"])
def test_stories_through_every_stage(pools, text_model, tmp_path, kind):
    model = text_model if kind == "text" else None
    for metrics in run_all(pools["stories"], model, ["grpo", "ppo"], tmp_path).values():
        assert (metrics["tasks"], metrics["num_questions"]) == (["maths"], 3)
        assert 0 <= metrics["accuracy"] <= 1 and 0 <= metrics["format"] <= 1
    if model:
        for algorithm in ("offline_st", "online_st"):
            roll(pools["stories"], small(model), algorithm, tmp_path / "policies" / "warmup-4-0", tmp_path / algorithm)
    roll(pools["stories"], small(model, "trl"), "grpo", tmp_path / "policies" / "warmup-4-0", tmp_path / "trl")


@pytest.mark.parametrize(
    ("task", "names"),
    [("programs", {"accuracy", "answer", "vote", "pass_at_k"}), ("cases", {"top1", "top5", "top_max", "answer"})],
)
def test_programs_and_rankings_through_every_stage(pools, text_model, tmp_path, task, names):
    for metrics in run_all(pools[task], text_model, ["grpo"], tmp_path).values():
        assert names <= metrics.keys()
