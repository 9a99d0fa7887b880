"""SFT in two processes: the losses and gradients of one, an epoch's last, short batch included."""

import json

import pytest
import torch

from tasks import sft
from tasks.params import Sft
from tasks.schema.model import Lora
from tests.together import together

# A rate that leaves the weights as they are: AdamW's first steps have the size of the rate however small a gradient is,
# so that rounding would grow.
SETTINGS = Sft(steps=4, epochs=None, batch_size=4, learning_rate=1e-12, weight_decay=0.0, eval_steps=4)


def train(job, out, monkeypatch) -> tuple[list[dict], dict]:
    """The gradients of each step, and what is said of it in history.json, as far as this process writes it."""
    gradients, step = [], sft.Shared.training_step

    def stepped(trainer, model, *args, **kwargs):
        loss = step(trainer, model, *args, **kwargs)
        named = trainer.model.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        return loss

    monkeypatch.setattr(sft.Shared, "training_step", stepped)
    sft.train(job, SETTINGS, out)
    monkeypatch.undo()
    return gradients, json.loads((out / "history.json").read_text()) if out.exists() else {}


def few(job, lora: dict | None):
    job.train = job.train[:5]  # every other batch has one row: process 0 has none
    model = job.params.model.model_copy(update={"lora": lora and Lora(**lora)})
    job.params = job.params.model_copy(update={"model": model})
    return job


LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA, {**LORA, "dora": True}], ids=["whole weights", "LoRA", "DoRA"])
def test_two_processes_make_the_steps_of_one(make_job, tmp_path, monkeypatch, lora):
    make = lambda: few(make_job("sft"), lora)  # noqa: E731
    alone, told = train(make(), tmp_path / "alone", monkeypatch)
    pair = together(2, lambda: train(make(), tmp_path / "pair", monkeypatch))
    for gradients, _ in pair:
        assert len(gradients) == SETTINGS.steps
        for mine, whole in zip(gradients, alone, strict=True):
            assert mine.keys() == whole.keys()
            for name, gradient in whole.items():
                torch.testing.assert_close(mine[name], gradient, rtol=0, atol=1e-6)
    written = pair[0][1]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [s[name] for s in written["steps"]] == pytest.approx([s[name] for s in told["steps"]], abs=1e-6)
    used = {name: n for name, n in told["budget"].items() if "tokens" in name or name == "gradient_steps"}
    assert {name: written["budget"][name] for name in used} == used
    assert written["val"] == told["val"]
