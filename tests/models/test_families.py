"""Each model family's tiny random twin through SFT, GRPO, PPO and grading, with an adapter and without."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from tasks import rft, sft
from tasks.grade import grade
from tasks.models.training import Job
from tasks.params import Params, Slice, WordsDataset, load_params
from tasks.prepare import prepare
from tasks.slice import make_slice
from tests.models.twins import TWINS, write_twin

FEW = {"steps": 2, "eval_steps": 2, "batch_size": 2, "learning_rate": 1e-3}
ROLLOUTS = {"steps": 2, "eval_steps": 2, "prompts_per_step": 2, "num_generations": 2, "max_completion_length": 8}
LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}
ADAPTERS = {
    "whole weights": None,
    "an adapter": LORA,
    "DoRA, the adapter alone": {**LORA, "dora": True, "output": "adapter"},
    "QLoRA": {**LORA, "quantize": "nf4"},
}
IN_FOUR_BITS = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="pip install -e '.[qlora]'")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder with a pool of problems in words and a slice of it."""
    folder = tmp_path_factory.mktemp("words")
    sizes = {"num_train": 6, "num_val": 2, "num_test": 2}
    prepare(WordsDataset(source="words", task="stories", seed=0, num_steps=[2, 2], **sizes), folder / "pool")
    make_slice(Slice(), folder / "pool", 2, 0, folder / "slice")
    return folder


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """{family: the section `model` of its twin}, each written once."""
    made = {}

    def get(family: str):
        if family not in made:
            made[family] = write_twin(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


def small(model, **model_keys) -> Params:
    params = load_params()
    changed = {
        "sft": {**FEW, "epochs": None},
        "warmup": {**FEW, "epochs": None},
        "rft": {**ROLLOUTS, "warmup_steps": 0, "beta": 0.01},
        "grade": {"max_new_tokens": 8, "batch_size": 4},
    }
    sections = {name: getattr(params, name).model_copy(update=values) for name, values in changed.items()}
    model = type(model).model_validate({**model.model_dump(), **model_keys})
    return params.model_copy(update={**sections, "model": model})


def run(params: Params, policy: str, folder, init, out):
    """Train `policy` as its stage does, and grade it."""
    job = Job(params, policy, folder / "pool", folder / "slice", init, 0)
    if policy in ("warmup", "sft"):
        sft.train(job, getattr(params, policy), out)
    else:
        model, validation, steps = rft.ENGINES["kshot", policy](job)
        job.save(model, out, validation, steps)
    metrics = grade(params, folder / "pool", out, out.parent / f"grade-{policy}", None)
    history = json.loads((out / "history.json").read_text())
    assert [row["step"] for row in history["steps"]] == [1, 2]
    assert 0 <= metrics["reward"] <= 1
    return job


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter", [pytest.param(name, marks=IN_FOUR_BITS if name == "QLoRA" else ()) for name in ADAPTERS]
)
@pytest.mark.parametrize("family", TWINS)
def test_every_family_goes_through_every_stage(data, words, twin, tmp_path, family, adapter):
    folder = words if family in ("qwen3", "llama") else data
    params = small(twin(family), lora=ADAPTERS[adapter])
    run(params, "warmup", folder, None, tmp_path / "warmup")
    for policy in ("grpo", "ppo"):
        run(params, policy, folder, tmp_path / "warmup", tmp_path / policy)
        alone = (ADAPTERS[adapter] or {}).get("output") == "adapter"
        assert (tmp_path / policy / "adapter_model.safetensors").is_file() == alone
        assert (tmp_path / policy / "model.safetensors").is_file() == (not alone)


@pytest.mark.slow
@IN_FOUR_BITS
def test_the_shipped_model_is_trained_in_four_bits(data, tmp_path):
    params = small(load_params().model, lora={**LORA, "quantize": "nf4"})
    run(params, "sft", data, None, tmp_path / "sft")
    run(params, "grpo", data, tmp_path / "sft", tmp_path / "grpo")
    for policy in ("sft", "grpo"):  # merged: a plain folder, whose weights are numbers again
        weights = load_file(tmp_path / policy / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
