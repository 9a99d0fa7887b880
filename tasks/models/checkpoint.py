"""Checkpoints of a run that may be cut off at any moment: written whole or not at all, and never trusted unread.

A checkpoint is a folder `step-N` with the files of the state and a manifest of their hashes, written under another
name, synced and renamed. They lie outside DVC's outs, which are removed before a stage runs, in a folder named by what
the run is made of: another run's state is never picked up.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from tasks.models import processes
from tasks.models.integrity import sha256
from tasks.models.training import Job

ROOT = Path(".rft/checkpoints")
MANIFEST = "manifest.json"
WRITING = "writing"
KEPT = 2
MOST_SECONDS = 15 * 60  # between two checkpoints, and a step: what a kill may cost where validation is rare
SECTIONS = ("model", "prompt", "reward", "grade")  # and that of the policy
TASKS = Path(__file__).parents[1]
TIMED = ("history.json", "events.jsonl", "README.md")  # of a trained folder: they hold seconds that its making took
CODE = [TASKS / name for name in ("sft.py", "rl", "graders", "models", "data")]  # that a step runs


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hashes(folder: Path) -> dict[str, str]:
    """{file: its hash} of a checkpoint, in whose folders some backends write folders."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def identity(job: Job) -> str:
    """A hash of what a run depends on: parameters, seed, slice, initial weights, libraries, CODE."""
    digest = hashlib.sha256()
    parts = [job.policy, job.seed, torch.__version__, transformers.__version__, version("trl")]
    own = job.policy if job.policy in ("warmup", "sft") else "rft"
    parts += [getattr(job.params, name).model_dump_json() for name in (*SECTIONS, own)]
    parts += [job.matched.mode, job.matched.budget] if job.matched else []
    # DeepSpeed's files are one a process; what others write is whole
    parts += [job.params.launch.model_dump_json()] if job.params.launch.backend.startswith("zero") else []
    digest.update("\n".join(map(str, parts)).encode())
    places = [job.slice, *CODE, *([job.init] if job.init else [])]
    files = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    for file in sorted(file for file in files if file.suffix != ".pyc"):
        if file.is_file() and file.name not in TIMED:
            digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()[:16]


class CheckpointError(OSError):
    """A checkpoint that cannot be written; the ones before are as they were."""


def write_state(state: dict, path: Path) -> None:
    """torch.save, with the `OSError` of a write that fails, where torch tells of it in a `RuntimeError` of its own."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


class Checkpoints:
    """The checkpoints of `job` in `folder`/<policy>-<slice>/<identity>. Of several processes only process 0 writes and
    chooses; how many there are is no part of a run's identity, so that another number of them can go on (not under
    DeepSpeed).
    """

    def __init__(self, folder: Path, job: Job):
        self._stage = folder / f"{job.policy}-{job.slice.name}"
        self._folder = self._stage / identity(job)
        self._saved = time.monotonic()

    def overdue(self) -> bool:
        """Whether the last of them, or the start, is MOST_SECONDS ago, by the clock of process 0."""
        return processes.of_main(time.monotonic() - self._saved >= MOST_SECONDS)

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """`write` puts the files of the state after `step` into the folder that it is given. The state before is kept.
        Raises `CheckpointError` where that cannot be written: a full disk, a folder that is not writable.
        """
        if processes.rank() == 0:
            try:
                self._save(step, write)
            except OSError as error:
                shutil.rmtree(self._folder / WRITING, ignore_errors=True)
                raise CheckpointError(
                    f"the checkpoint after step {step} cannot be written to {self._folder}: {error}; free space there "
                    "or make it writable: the same command goes on from the checkpoint before"
                ) from error
        processes.wait()
        self._saved = time.monotonic()

    def _save(self, step: int, write: Callable[[Path], object]) -> None:
        temporary = self._folder / WRITING
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        hashes = _hashes(temporary)
        (temporary / MANIFEST).write_text(json.dumps({"step": step, "sha256": hashes}))
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        shutil.rmtree(self._at(step), ignore_errors=True)
        temporary.rename(self._at(step))
        _sync(self._folder)
        for old in self._steps()[KEPT:]:
            shutil.rmtree(self._at(old))

    def newest(self) -> Path | None:
        """The folder of the newest state that is whole, or None. What is passed over is named on stderr."""
        return processes.of_main(self._newest() if processes.rank() == 0 else None)

    def _newest(self) -> Path | None:
        for step in self._steps():
            folder = self._at(step)
            try:
                manifest = json.loads((folder / MANIFEST).read_text())
                if manifest == {"step": step, "sha256": _hashes(folder)}:
                    print(f"resumes after step {step}: {folder}", file=sys.stderr)
                    return folder
            except (OSError, ValueError):
                pass  # the same as a wrong hash: the checkpoint is not whole
            print(f"damaged, not used: {folder}", file=sys.stderr)
        if self._steps():
            print(f"begins anew: no checkpoint in {self._folder} is whole", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove them, and what other runs of this stage left."""
        if processes.rank() == 0:
            shutil.rmtree(self._stage, ignore_errors=True)

    def _at(self, step: int) -> Path:
        return self._folder / f"step-{step}"

    def _steps(self) -> list[int]:
        """Newest first."""
        names = [path.name.removeprefix("step-") for path in self._folder.glob("step-*")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)
