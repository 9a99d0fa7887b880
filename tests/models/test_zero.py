"""SFT and TRL's GRPO in two processes under DeepSpeed: the steps of one, a folder that loads, a run that goes on."""

import json

import pytest
import torch

from tasks import sft
from tasks.models.loading import load_model
from tasks.models.zero import STAGES
from tasks.params import Sft
from tasks.rl import trl_grpo
from tasks.schema.launch import Launch
from tests.together import together

pytest.importorskip("deepspeed", reason="pip install -e '.[deepspeed]'")
pytestmark = pytest.mark.slow

SETTINGS = Sft(steps=4, epochs=None, batch_size=4, learning_rate=1e-4, weight_decay=0.01, eval_steps=2)
LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}


OFF = {"zero2": 0, "zero3": 0, "zero3_offload": 1e-5}  # DeepSpeedCPUAdam takes a power where it goes on, else products


class Cut(RuntimeError):
    """The run ends here."""


def sharing(job, backend: str, lora: dict | None = None):
    """`job` with two processes under `backend`, on a val that takes no time and finds every check better."""
    params = job.params
    grade = params.grade.model_copy(update={"max_new_tokens": 8})
    model = type(params.model).model_validate({**params.model.model_dump(), "lora": lora})
    num = 1 if backend == "single" else 2
    launch = Launch(backend=backend, num_processes=num)
    job.params = params.model_copy(update={"launch": launch, "grade": grade, "model": model})
    job.train = job.train[:5]  # every other batch has one row: process 0 has none
    make = job.validation

    def rising(*args, **kwargs):
        validation = make(*args, **kwargs)
        score = validation.score
        validation.score = lambda model: score(model) | {"reward": float(len(validation.curve))}
        return validation

    job.validation = rising  # else the first weights are kept, which all share
    return job


def result(job, out) -> tuple[dict[str, torch.Tensor], dict]:
    weights = load_model(job.params.model, out).state_dict()
    return weights, json.loads((out / "history.json").read_text())


def assert_same(pair, alone, atol: float) -> None:
    (weights, told), (expected, history) = pair, alone
    for name in ("loss", "grad_norm"):
        assert [s[name] for s in told["steps"]] == pytest.approx([s[name] for s in history["steps"]], abs=atol)
    assert (told["val"], told["best_step"]) == (history["val"], SETTINGS.steps)
    off = max((weights[name] - expected[name]).abs().max().item() for name in expected)
    assert off <= atol, off


@pytest.mark.parametrize("backend", STAGES)
@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_two_processes_make_the_steps_of_one(make_job, tmp_path, backend, lora):
    make = lambda launched: sharing(make_job("sft"), launched, lora)  # noqa: E731
    together(1, lambda: sft.train(make("single"), SETTINGS, tmp_path / "alone"))
    together(2, lambda: sft.train(make(backend), SETTINGS, tmp_path / "pair"))
    assert_same(result(make(backend), tmp_path / "pair"), result(make(backend), tmp_path / "alone"), 1e-5)


@pytest.mark.parametrize("backend", STAGES)
def test_a_run_that_is_cut_off_goes_on(make_job, tmp_path, monkeypatch, backend):
    def run(out):
        job = sharing(make_job("sft"), backend)
        job.checkpoints = tmp_path / "kept"
        sft.train(job, SETTINGS, out)

    def cut_off():
        step = sft.Shared.training_step

        def stepped(trainer, *args, **kwargs):
            if trainer.state.global_step == 3:
                raise Cut
            return step(trainer, *args, **kwargs)

        with monkeypatch.context() as patched, pytest.raises(Cut):
            patched.setattr(sft.Shared, "training_step", stepped)
            run(tmp_path / "cut")

    together(2, lambda: sft.train(sharing(make_job("sft"), backend), SETTINGS, tmp_path / "whole"))
    together(2, cut_off)
    assert list(tmp_path.glob("kept/*/*/step-2"))
    together(2, lambda: run(tmp_path / "again"))
    job = sharing(make_job("sft"), backend)
    assert_same(result(job, tmp_path / "again"), result(job, tmp_path / "whole"), OFF[backend])


@pytest.mark.parametrize("backend", STAGES)
def test_grpo_by_trl_learns_and_leaves_a_folder_that_loads(make_job, tmp_path, backend):
    def run():
        job = sharing(make_job("grpo", engine="trl", prompts_per_step=2, max_completion_length=16), backend)
        model, validation, steps = trl_grpo.train(job)
        job.save(model, tmp_path / "out", validation, steps)

    together(2, run)
    weights, told = result(sharing(make_job(), backend), tmp_path / "out")
    assert [s["step"] for s in told["steps"]] == [1, 2] and len(told["val"]) == 2
    assert all(value.isfinite().all() for value in weights.values())
