"""A run that is cut off goes on to the same weights, bit by bit, and never from the state of another."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tasks import rft, sft
from tasks.models import checkpoint, pause, processes
from tasks.models.checkpoint import Checkpoints, identity
from tasks.models.loading import load_model
from tasks.models.pause import Paused
from tasks.params import Sft
from tasks.rl.trainer import Trainer
from tests.together import together

SETTINGS = {"steps": 4, "eval_steps": 1, "prompts_per_step": 2, "num_iterations": 2, "max_completion_length": 16}
QUESTIONS = {"grpo": 3, "ppo": 3, "sft": 7}  # an epoch is 1.5 steps of RFT; of SFT 3, the last of them a short batch
SFT = Sft(steps=8, epochs=None, batch_size=3, learning_rate=1e-3, weight_decay=0.0, eval_steps=2)


def run(job) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    model, validation, steps = rft.ENGINES["kshot", job.policy](job)
    validation.restore(model)
    return model.state_dict(), [step["reward"] for step in steps], [point["reward"] for point in validation.curve]


@pytest.fixture(scope="module")
def whole(make_job, short):
    """algorithm, model.compute -> the job and the end of a run that nobody cut off."""

    @functools.cache
    def of(algorithm: str, compute: str | None) -> tuple:
        job = short(make_job(algorithm, **SETTINGS), QUESTIONS[algorithm])
        model = job.params.model.model_copy(update={"compute": compute})
        job.params = job.params.model_copy(update={"model": model})
        return job, run(job)

    return of


@pytest.mark.parametrize(
    ("algorithm", "compute", "done"),
    [
        ("grpo", None, 2),
        *(pytest.param("grpo", None, done, marks=pytest.mark.slow) for done in (1, 3)),
        *(pytest.param("ppo", None, done, marks=pytest.mark.slow) for done in (1, 2, 3)),
        pytest.param("grpo", "bfloat16", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_cut_off_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch, algorithm, compute, done):
    job, (weights, rewards, val) = whole(algorithm, compute)
    budget = job.budget
    job = dataclasses.replace(job, checkpoints=tmp_path)
    step = Trainer.step

    def cut_off(trainer):
        if trainer.state.global_step == done:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    begun = []
    monkeypatch.setattr(Trainer, "step", lambda trainer: begun.append(trainer.state.global_step) or step(trainer))
    again = dataclasses.replace(job)
    resumed = run(again)
    assert again.budget == budget
    assert begun == [*range(done, SETTINGS["steps"])]
    assert (resumed[1], resumed[2]) == (rewards, val)
    assert all(torch.equal(resumed[0][name], weights[name]) for name in weights)


def test_where_validation_is_rare_the_time_makes_a_checkpoint(make_job, tmp_path, monkeypatch):
    settings = {**SETTINGS, "steps": 3, "eval_steps": 3}
    weights, rewards, val = run(make_job("grpo", **settings))
    job = dataclasses.replace(make_job("grpo", **settings), checkpoints=tmp_path)
    step, saved = Trainer.step, []

    def cut_off(trainer):
        saved.append(sorted(path.name for path in tmp_path.glob("*/*/step-*")))
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt
        clock[0] += checkpoint.MOST_SECONDS / 2 + 1  # it is due after the second step
        return step(trainer)

    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Trainer, "step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert saved == [[], [], ["step-2"]]
    monkeypatch.setattr(Trainer, "step", step)
    resumed = run(dataclasses.replace(job))
    assert (resumed[1], resumed[2]) == (rewards, val)
    assert all(torch.equal(resumed[0][name], weights[name]) for name in weights)


def test_processes_agree_on_whether_a_checkpoint_is_due(make_job, tmp_path):
    """By the clock of the first, else some would wait for others that go on."""
    job = make_job()

    def due() -> list[bool]:
        checkpoints, seen = Checkpoints(tmp_path, job), []
        for seconds in ((0, 2), (2, 0)):  # of process 0, of process 1
            checkpoints._saved = time.monotonic() - seconds[processes.rank()] * checkpoint.MOST_SECONDS
            seen.append(checkpoints.overdue())
        return seen

    assert together(2, due) == [[False, True]] * 2


@pytest.mark.parametrize(
    "ask",
    [lambda: os.kill(os.getpid(), signal.SIGTERM), pytest.param(lambda: pause.FILE.touch(), marks=pytest.mark.slow)],
)
def test_a_run_that_is_asked_to_pause_stops_after_its_step_and_goes_on(make_job, tmp_path, monkeypatch, ask):
    settings = {**SETTINGS, "steps": 3, "eval_steps": 3}  # no checkpoint is due at the step of the pause
    weights, rewards, val = run(make_job("grpo", **settings))
    job = dataclasses.replace(make_job("grpo", **settings), checkpoints=tmp_path)
    step, asked = Trainer.step, []

    def asking(trainer):
        if not asked:
            asked.append(ask())
        return step(trainer)

    monkeypatch.setattr(pause, "FILE", tmp_path / "pause")  # no other test's run is to see it
    monkeypatch.setattr(Trainer, "step", asking)
    with pytest.raises(Paused, match="paused after step 1"):
        run(job)
    assert not pause.requested()
    resumed = run(dataclasses.replace(job))
    assert (resumed[1], resumed[2]) == (rewards, val)
    assert all(torch.equal(resumed[0][name], weights[name]) for name in weights)


@pytest.fixture(scope="module")
def whole_sft(make_job, short, tmp_path_factory):
    """A job of SFT, and the folder that it leaves when nobody cuts it off."""
    job, out = short(make_job("sft"), QUESTIONS["sft"]), tmp_path_factory.mktemp("sft") / "whole"
    sft.train(job, SFT, out)
    return job, out


@pytest.mark.parametrize("saves", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_sft_that_is_cut_off_ends_as_if_it_had_not_been(whole_sft, tmp_path, monkeypatch, saves):
    job, out = whole_sft
    resumable = dataclasses.replace(job, checkpoints=tmp_path / "checkpoints")
    on_save = sft.Resuming.on_save

    def cut_off(resuming, args, state, control, **kwargs):
        on_save(resuming, args, state, control, **kwargs)
        if state.global_step == saves * SFT.eval_steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(sft.Resuming, "on_save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        sft.train(resumable, SFT, tmp_path / "cut")
    monkeypatch.setattr(sft.Resuming, "on_save", on_save)
    sft.train(dataclasses.replace(resumable), SFT, tmp_path / "cut")
    whole, cut = (json.loads((folder / "history.json").read_text()) for folder in (out, tmp_path / "cut"))
    assert (cut["val"], cut["best_step"]) == (whole["val"], whole["best_step"])
    assert cut["budget"]["completion_tokens_trained"] == whole["budget"]["completion_tokens_trained"] > 0
    assert [step["loss"] for step in cut["steps"]] == [step["loss"] for step in whole["steps"]]  # the same rows came
    weights = [load_model(job.params.model, folder).state_dict() for folder in (out, tmp_path / "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def holding(step: int) -> Callable[[Path], None]:
    """Writes a state that only `held` reads."""
    return lambda folder: torch.save({"step": step, "weights": torch.arange(1000.0)}, folder / "state.pt")


def test_a_run_under_another_grader_or_engine_is_never_picked_up(make_job, tmp_path, monkeypatch):
    """A reward that changed between two starts would be half of each."""
    code = tmp_path / "tasks"
    shutil.copytree(checkpoint.TASKS, code, ignore=shutil.ignore_patterns("__pycache__"))
    job, before = make_job(), set()
    monkeypatch.setattr(checkpoint, "CODE", [code / folder.name for folder in checkpoint.CODE])
    for file in ("rl/losses.py", "graders/detection.py", "models/coordinates.py", "data/questions.py"):
        before.add(identity(job))
        (code / file).write_text((code / file).read_text() + "# changed\n")
        assert identity(job) not in before, file


def test_another_run_is_never_picked_up(make_job, tmp_path):
    job = make_job()
    Checkpoints(tmp_path, job).save(1, holding(1))
    assert Checkpoints(tmp_path, make_job(beta=0.5)).newest() is None
    assert Checkpoints(tmp_path, dataclasses.replace(job, seed=1)).newest() is None
    other = tmp_path / "other" / job.slice.name
    shutil.copytree(job.slice, other)
    moved = dataclasses.replace(job, slice=other)
    assert identity(moved) == identity(job)
    init = tmp_path / "init"
    init.mkdir()
    (init / "config.json").write_text("{}")
    begun = dataclasses.replace(job)
    begun.init = init
    same = identity(begun)
    for name in ("history.json", "README.md", "events.jsonl"):
        (init / name).write_text("3.2 seconds")
    assert identity(begun) == same
    (init / "config.json").write_text("{ }")
    assert identity(begun) != same
    (other / "train.jsonl").write_text((other / "train.jsonl").read_text().replace("detection", "grounding", 1))
    assert identity(moved) != identity(job)


@pytest.mark.slow
def test_the_command_killed_in_training_goes_on_and_ends_with_the_same_policy(make_job, tmp_path):
    """SIGKILL after every checkpoint; the last start finishes. The policy is that of a run that nobody killed."""
    root, job = Path.cwd(), make_job(**SETTINGS)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["rft"] = job.params.rft.model_dump()
    params["model"]["path"] = str(root / "models/tiny")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    words = f"-m tasks.rft --algorithm grpo --pool {job.pool} --slice {job.slice} --init {root}/models/tiny --seed 0"

    def start(out: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.Popen([sys.executable, *words.split(), "--out", out], cwd=tmp_path, env=environment)

    assert start("whole").wait() == 0
    for done in (1, 2):
        process = start("killed")
        while not list(tmp_path.glob(f".rft/checkpoints/*/*/step-{done}")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    assert start("killed").wait() == 0
    whole, killed = (load_model(job.params.model, tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    rewards = [json.loads((tmp_path / name / "history.json").read_text())["val"] for name in ("whole", "killed")]
    assert rewards[0] == rewards[1]
    assert not list(tmp_path.glob(".rft/checkpoints/*"))
