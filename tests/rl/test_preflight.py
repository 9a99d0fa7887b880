"""What would train something else than the model answers with is refused before the first step."""

import pytest
import torch

from tasks.rl import preflight
from tasks.rl.grpo import Grpo
from tasks.rl.trainer import Trainer


def check(trainer: Trainer) -> None:
    preflight.check(trainer.policy, trainer.job, trainer.prompt(0))


def test_the_shipped_model_passes(make_job):
    check(Trainer(make_job(), Grpo))


def test_other_positions_than_the_models_own_are_refused(make_job, monkeypatch):
    trainer = Trainer(make_job(), Grpo)
    inner = trainer.policy.base.model
    own = inner.get_rope_index

    def shifted(*args, **kwargs):
        positions, deltas = own(*args, **kwargs)
        return positions * 2, deltas

    monkeypatch.setattr(inner, "get_rope_index", shifted)
    prompt = trainer.prompt(0)
    monkeypatch.setattr(inner, "get_rope_index", own)
    with pytest.raises(preflight.PreflightError, match=r"take rft\.engine trl"):
        preflight.check(trainer.policy, trainer.job, prompt)


def test_a_picture_that_changes_nothing_is_refused(make_job):
    trainer = Trainer(make_job(), Grpo)
    tower = trainer.policy.base.model.visual
    with torch.no_grad():
        for merger in (tower.merger, *tower.deepstack_merger_list):
            merger.linear_fc2.weight.zero_()
    with pytest.raises(preflight.PreflightError, match="changes nothing"):
        check(trainer)
