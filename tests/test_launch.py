"""The stage `rft` as two processes: it fails at once where one of them dies, and goes on by the same command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from tasks import launch
from tasks.launch import LaunchError
from tasks.models.loading import load_model
from tasks.params import ParamsError, load_params, validate
from tasks.schema.launch import Launch

RAW = yaml.safe_load(Path("params.yaml").read_text())
SETTINGS = {"steps": 3, "eval_steps": 1, "prompts_per_step": 2, "max_completion_length": 64}  # 24 would earn nothing


def given(**changed) -> dict:
    """The shipped parameters with sections changed."""
    return {**RAW, **{name: {**RAW[name], **values} for name, values in changed.items()}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"launch": {"backend": "ddp", "num_processes": 1}}, "does not go with launch.backend ddp"),
        ({"launch": {"backend": "single", "num_processes": 2}}, "does not go with launch.backend single"),
        ({"launch": {"backend": "fsdp", "num_processes": 3}}, r"rft\.prompts_per_step 8 must be a multiple of"),
        ({"launch": {"backend": "ddp", "num_processes": 2}, "sft": {"batch_size": 7}}, r"sft\.batch_size 7 must be"),
        ({"launch": {"backend": "fsdp", "num_processes": 2}, "rft": {"engine": "trl"}}, r"ddp and zero\* only"),
        ({"launch": {"backend": "zero2", "num_processes": 2}}, "backend zero2: .* rft.engine kshot sums .* take fsdp"),
        ({"launch": {"backend": "zero1", "num_processes": 2}}, r"launch\.backend"),
    ],
)
def test_batches_that_do_not_share_out_are_refused_before_any_work(sections, said):
    with pytest.raises(ParamsError, match=said):
        validate(given(**sections), "params.yaml")


@pytest.mark.parametrize("backend", ["zero2", "zero3", "zero3_offload"])
def test_deepspeed_that_is_not_installed_is_refused_by_name(monkeypatch, backend):
    monkeypatch.setattr(launch, "find_spec", {"deepspeed": None}.get)
    with pytest.raises(LaunchError, match=f"launch.backend {backend}: DeepSpeed .* take fsdp"):
        launch.check(Launch(backend=backend, num_processes=2))


def test_another_number_of_processes_than_was_started_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    joined = launch.joined(Launch(backend="ddp", num_processes=2), "tasks.rft")
    with pytest.raises(LaunchError, match="num_processes is 2, but WORLD_SIZE says that 4"), joined:
        pass


STAGE = """
import os, signal, sys, time
import torch
from tasks import launch
from tasks.models import processes
from tasks.schema.launch import Launch

with launch.joined(Launch(backend="ddp", num_processes=2), "stage"):
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    print("ranks", processes.gather([processes.rank()]), flush=True)
    if sys.argv[1] == "raise" and processes.rank() == 1:
        pending = torch.distributed.all_reduce(torch.ones(1), async_op=True)
        raise ValueError("what went wrong")
    if sys.argv[1] == "raise":
        time.sleep(600)  # never comes to that sum
    while sys.argv[1] == "pause" and not processes.any_of(bool(asked)):
        time.sleep(0.1)
    if sys.argv[1] == "pause":
        sys.exit(os.EX_TEMPFAIL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("what", "code"), [("pause", os.EX_TEMPFAIL), ("end", 0), ("raise", 1)])
def test_processes_begin_and_end_together(tmp_path, what, code):
    (tmp_path / "stage.py").write_text(STAGE)
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    command, environment = [sys.executable, "-m", "stage", what], {**os.environ, "PYTHONPATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as process:
        assert process.stdout.readline() == "ranks [0, 1]\n"
        if what == "pause":
            process.send_signal(signal.SIGTERM)  # reaches both
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), said
    told = "process 1 of 2 failed (exit code 1)" in said and "ValueError: what went wrong" in said
    assert told == (what == "raise")


class Stage:
    """`python -m tasks.rft` in a folder of its own."""

    def __init__(self, job, folder: Path):
        self.folder, root = folder, Path.cwd()
        self._job, self._environment = job, {**os.environ, "PYTHONPATH": str(root)}
        init = root / "models/tiny"
        words = f"-m tasks.rft --algorithm grpo --pool {job.pool} --slice {job.slice} --init {init} --seed 0"
        self._words = [sys.executable, *words.split(), "--out"]

    def start(self, backend: str, out: str) -> subprocess.Popen:
        changed = given(
            rft={**self._job.params.rft.model_dump(), **SETTINGS}, model={"path": str(Path.cwd() / "models/tiny")}
        )
        changed["launch"] = {"backend": backend, "num_processes": 1 if backend == "single" else 2}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(changed))
        said = (self.folder / f"{out}.err").open("a")
        return subprocess.Popen([*self._words, out], cwd=self.folder, env=self._environment, stderr=said)

    def kill_one(self, process: subprocess.Popen, after: str) -> float:
        """SIGKILL to process 1 once the checkpoint `after` is there; the seconds until the stage failed."""
        while not list(self.folder.glob(f".rft/checkpoints/*/*/{after}")):
            assert process.poll() is None, "it ended before"
            time.sleep(0.01)
        one = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
        one[0].send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert process.wait(timeout=60) == 128 + signal.SIGKILL
        return time.monotonic() - began

    def result(self, out: str) -> tuple[dict[str, torch.Tensor], dict]:
        weights = load_model(load_params().model, self.folder / out).state_dict()
        return weights, json.loads((self.folder / out / "history.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "then"), [("ddp", "ddp"), ("fsdp", "fsdp"), ("fsdp", "single")])
def test_a_process_that_dies_fails_the_stage_which_goes_on(make_job, tmp_path, backend, then):
    """With as many processes bit for bit, with another number as near as rounding is."""
    stage = Stage(make_job(), tmp_path)
    assert stage.start(backend, "whole").wait() == 0
    process = stage.start(backend, "killed")
    seconds = stage.kill_one(process, "step-1")
    said = (tmp_path / "killed.err").read_text()
    assert "process 1 of 2 failed (killed by SIGKILL), the others were stopped" in said
    assert not psutil.pid_exists(process.pid) and not (tmp_path / "killed").exists()
    assert stage.start(then, "killed").wait() == 0
    assert "resumes after step" in (tmp_path / "killed.err").read_text()
    (whole, told), (killed, again) = stage.result("whole"), stage.result("killed")
    print(backend, then, "failed after", round(seconds, 1), "s", [s["reward"] for s in told["steps"]])
    off = max((whole[name] - killed[name]).abs().max().item() for name in whole)
    assert off <= (0 if then == backend else 1e-5)
    for name in ("loss", "reward", "completion_tokens"):
        assert [s[name] for s in again["steps"]] == pytest.approx([s[name] for s in told["steps"]], abs=1e-5)
    assert not list(tmp_path.glob(".rft/checkpoints/*"))
