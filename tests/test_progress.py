"""The lines that a training prints into a log, and what is read back from them."""

import pytest
import torch
from transformers import TrainerControl, TrainerState

from tasks import progress
from tasks.models.validation import Validation
from tasks.progress import Progress, read_progress


@pytest.fixture
def said(monkeypatch, capsys):
    """Steps of a training whose rewards are known, every one of them told: the lines of its log."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    rewards = iter([0.25, 0.5])
    validation = Validation("grpo", lambda model: {"reward": next(rewards)}, every=2)
    state, control, model = TrainerState(max_steps=2), TrainerControl(), torch.nn.Linear(1, 1)
    validation.on_train_begin(None, state, control, model=model)
    for step in (1, 2):
        state.global_step = step
        validation.on_log(None, state, control, logs={"reward": 0.75})
        validation.on_step_end(None, state, control, model=model)
    return capsys.readouterr().err.splitlines()


def test_a_log_tells_how_far_a_training_is(said):
    told = list(map(read_progress, said))
    assert all(told), said
    assert [line.step for line in told] == sorted(line.step for line in told)
    assert (told[0].step, told[0].steps, told[-1].step) == (0, 2, 2)
    assert "val_reward=0.250" in said[1] and "val_reward=0.500" in said[-1] and "reward=0.750" in said[-1]
    assert said[-1].endswith("left")


def test_other_lines_tell_nothing():
    assert read_progress("progress: sft step 2 of 80, val_reward=0.7, 01:05 left") == Progress(
        "sft", 2, 80, "val_reward=0.7, 01:05 left"
    )
    for line in ("", "loss 0.3", "progress: sft step 2 of ?, ? left", "progress: sft step 2 of 0, 00:00 left"):
        assert read_progress(line) is None
