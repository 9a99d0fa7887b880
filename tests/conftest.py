"""A pool and a k = 1 slice of it, and jobs on the shipped model."""

import dataclasses
import shutil
from pathlib import Path

# First: Prefect's set-up of logging closes what handlers there are, and absl's (of rouge-score) closes pytest's stderr.
import prefect.main  # noqa: F401
import pytest

from tasks.models.training import Job
from tasks.params import DigitsDataset, Slice, load_params
from tasks.prepare import prepare
from tasks.slice import make_slice


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with a pool and a k = 1 slice of it."""
    folder = tmp_path_factory.mktemp("data")
    prepare(DigitsDataset(source="digits", seed=0, num_train=60, num_val=2, num_test=2), folder / "pool")
    make_slice(Slice(num_absent=1, allow_fewer=False), folder / "pool", 1, 0, folder / "slice")
    return folder


@pytest.fixture(scope="session")
def make_job(data):
    """A job of a policy on the shipped model, small, with keys of the section `rft` changed."""

    def make(policy: str = "grpo", **rft) -> Job:
        params = load_params()
        small = {"steps": 2, "eval_steps": 2, "prompts_per_step": 4, "num_generations": 4, "max_completion_length": 96}
        small |= {"warmup_steps": 0, "beta": 0.01}  # every step learns and is held, whatever is shipped
        changed = params.model_copy(update={"rft": params.rft.model_copy(update={**small, **rft})})
        return Job(changed, policy, data / "pool", data / "slice", None, 0)

    return make


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """The same job on the first questions of its slice, so that a few steps are several epochs."""

    def shortened(job: Job, num: int) -> Job:
        folder = tmp_path_factory.mktemp("short") / job.slice.name
        shutil.copytree(job.slice, folder)
        rows = (folder / "train.jsonl").read_text().splitlines(keepends=True)
        (folder / "train.jsonl").write_text("".join(rows[:num]))
        return dataclasses.replace(job, slice=folder)

    return shortened
