"""How often the vision tower runs: once a picture and step, once at all while it is frozen, and what is kept of it."""

import pytest
import torch

from tasks.models import prompts
from tasks.models.prompts import Pictures
from tasks.rl.grpo import Grpo
from tasks.rl.trainer import Trainer
from tests.models.families import make_model, make_prompts


def counting(monkeypatch, inner, grid: str = "image_grid_thw") -> list[int]:
    """How many pictures each call of the tower of `inner` gets, from here on."""
    calls, tower = [], inner.get_image_features

    def counted(*args, **kwargs):
        calls.append(len(kwargs[grid]))
        return tower(*args, **kwargs)

    monkeypatch.setattr(inner, "get_image_features", counted)
    return calls


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_a_tower_that_learns_runs_once_an_optimizer_step_over_each_picture(make_job, monkeypatch, num_iterations):
    """The first update has the features of the rollout; 4 completions of each prompt and 2 micro-batches share them."""
    trainer = Trainer(make_job(num_iterations=num_iterations, micro_batch_tokens=100), Grpo)
    calls = counting(monkeypatch, trainer.policy.base.model)
    trainer.sampler.waiting = [0, 1, 2, 3]
    trainer.step()
    shown = len({trainer.job.train[n].image for n in range(4)})
    assert calls == [shown] * num_iterations


def test_a_frozen_tower_runs_once_a_picture_in_the_whole_run(make_job, monkeypatch):
    job = make_job(num_iterations=2)
    model = job.params.model.model_copy(update={"trained": "language"})
    job.params = job.params.model_copy(update={"model": model})
    trainer = Trainer(job, Grpo)
    calls = counting(monkeypatch, trainer.policy.base.model)
    trainer.sampler.waiting = [0, 1, 2, 3, 2, 3, 0, 1]
    trainer.step()
    trainer.step()
    assert calls == [len({job.train[n].image for n in range(4)})]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_no_more_than_so_many_pictures_are_kept_those_used_last(monkeypatch, family):
    monkeypatch.setattr(prompts, "KEPT", 2)
    model = make_model(family)
    first, second, third = given = make_prompts(family, model)
    pictures = Pictures(model, frozen=True)
    calls = counting(monkeypatch, model.model)
    pictures.encode(given)  # more at once than are kept
    whole = {p.picture: pictures.of([p])["mm_encoder_outputs"]["image"] for p in given}
    pictures.encode([second])
    pictures.encode([first])  # takes the place of the third
    pictures.encode([second, third])
    assert calls == [3, 1, 1]
    for prompt in (second, third):
        again = pictures.of([prompt])["mm_encoder_outputs"]["image"]
        for name in ("pooler_output", "deepstack_features"):
            pairs = zip(getattr(again, name), getattr(whole[prompt.picture], name), strict=True)
            for a, b in pairs:
                torch.testing.assert_close(a, b)
