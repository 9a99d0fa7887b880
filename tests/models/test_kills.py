"""SIGKILL at any moment, and at every step of writing a checkpoint: the same call ends with the same policy.

Runs are forks of this process, so that a start costs no imports.
"""

import copy
import dataclasses
import hashlib
import json
import os
import random
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tasks import rft
from tasks.models import checkpoint
from tasks.models.training import Job

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 4, "eval_steps": 1, "prompts_per_step": 2, "max_completion_length": 64}


def digest(job) -> str:
    """Train to the end; a hash of the best weights, the rewards and the validation."""
    model, validation, steps = rft.ENGINES["kshot", job.policy](job)
    validation.restore(model)
    content = hashlib.sha256()
    for tensor in model.state_dict().values():
        content.update(tensor.numpy().tobytes())
    content.update(json.dumps([[step["reward"] for step in steps], validation.curve]).encode())
    return content.hexdigest()


def start(work: Callable[[], object], kill_after: float | None = None) -> int:
    """The wait status of a fork that does `work`, killed after so many seconds unless it ends before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except Exception:
            traceback.print_exc()  # nobody else would tell
        finally:
            os._exit(code)
    timer = threading.Timer(kill_after or 600, os.kill, (child, signal.SIGKILL))
    timer.start()
    status = os.waitpid(child, 0)[1]
    timer.cancel()
    return status


def finish(job, out: Path) -> None:
    out.write_text(digest(dataclasses.replace(job)))


@pytest.fixture(scope="module", params=["grpo", "ppo"])
def whole(request, make_job, short):
    """A job and the digest of a run that nobody killed."""
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork, nor do those that read weights
    job = short(make_job(request.param, **SETTINGS), 3)  # several epochs
    loaded = job.load()

    def load(self: Job) -> PreTrainedModel:
        torch.manual_seed(self.seed)
        return copy.deepcopy(loaded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "load", load)
        yield job, digest(dataclasses.replace(job))


def test_thirty_kills_at_any_moment(whole, tmp_path):
    """With two algorithms, sixty. Each run of the job is killed until it is through."""
    job, expected = whole
    chance, kills, finished = random.Random(0), 0, 0
    while kills < 30:
        folder, out = tmp_path / f"run{finished}", tmp_path / f"digest{finished}"
        mine = dataclasses.replace(job, checkpoints=folder)
        while start(lambda mine=mine, out=out: finish(mine, out), kill_after=chance.uniform(0.3, 6)):
            kills += 1
        assert out.read_text() == expected, finished
        finished += 1


class Boundary:
    """Kills this process before the `number`th call of what a checkpoint is written with."""

    CALLS = ((torch, "save"), (os, "fsync"), (Path, "rename"), (Path, "write_text"), (checkpoint.shutil, "rmtree"))

    def __init__(self, number: int):
        self.left = number

    def arm(self) -> None:
        for place, name in self.CALLS:
            setattr(place, name, self._before(getattr(place, name)))

    def _before(self, call: Callable) -> Callable:
        def counted(*args, **kwargs):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return call(*args, **kwargs)

        return counted


def test_a_kill_at_every_boundary_of_a_save(whole, tmp_path):
    """Of the first save, with nothing to fall back on, of the second, and of the third, which removes the oldest."""
    job, expected = whole

    def work(number: int, folder: Path, armed: bool) -> None:
        if armed:
            Boundary(number).arm()
        finish(dataclasses.replace(job, checkpoints=folder), folder / "digest")

    for number in range(27):
        folder = tmp_path / str(number)
        folder.mkdir()
        status = start(lambda number=number, folder=folder: work(number, folder, armed=True))
        assert os.WTERMSIG(status) == signal.SIGKILL, number
        assert not start(lambda number=number, folder=folder: work(number, folder, armed=False)), number
        assert (folder / "digest").read_text() == expected, number
