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
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
import trl

from tasks.models import processes
from tasks.models.training import Job

ROOT = Path(".rft/checkpoints")
KEPT = 2
SECTIONS = ("model", "prompt", "reward", "grade")  # and that of the policy
TASKS = Path(__file__).parents[1]
CODE = [TASKS / name for name in ("sft.py", "rl", "graders", "models", "data")]  # that a step runs


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hashes(folder: Path) -> dict[str, str]:
    """{file: its hash} of a checkpoint."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): _hash(path) for path in files}


def identity(job: Job) -> str:
    """A hash of what a run depends on: parameters, seed, slice, initial weights, libraries, CODE."""
    digest = hashlib.sha256()
    parts = [job.policy, job.seed, torch.__version__, transformers.__version__, trl.__version__]
    own = job.policy if job.policy in ("warmup", "sft") else "rft"
    parts += [getattr(job.params, name).model_dump_json() for name in (*SECTIONS, own)]
    parts += [job.matched.mode, job.matched.budget] if job.matched else []
    # DeepSpeed's files are one a process; what others write is whole
    parts += [job.params.launch.model_dump_json()] if job.params.launch.backend.startswith("zero") else []
    digest.update("\n".join(map(str, parts)).encode())
    places = [job.slice, *CODE, *([job.init] if job.init else [])]
    files = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    for file in sorted(file for file in files if file.suffix != ".pyc"):
        if file.is_file() and file.name != "history.json":  # it holds the seconds that making the weights took
            digest.update(f"{file.name} {_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


class Checkpoints:
    """The checkpoints of `job` in `folder`/<policy>-<slice>/<identity>. Of several processes only process 0 writes and
    chooses; how many there are is no part of a run's identity, so that another number of them can go on (not under
    DeepSpeed).
    """

    def __init__(self, folder: Path, job: Job):
        self._stage = folder / f"{job.policy}-{job.slice.name}"
        self._folder = self._stage / identity(job)

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """`write` puts the files of the state after `step` into the folder that it is given. The state before is kept.
        Raises `OSError` (the older ones then stay).
        """
        if processes.rank() == 0:
            self._save(step, write)
        processes.wait()

    def _save(self, step: int, write: Callable[[Path], object]) -> None:
        temporary = self._folder / "writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        hashes = _hashes(temporary)
        for name in hashes:
            _sync(temporary / name)
        (temporary / "manifest.json").write_text(json.dumps({"step": step, "sha256": hashes}))
        _sync(temporary / "manifest.json")
        _sync(temporary)
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
                manifest = json.loads((folder / "manifest.json").read_text())
                if manifest == {"step": step, "sha256": _hashes(folder)}:
                    print(f"resumes after step {step}: {folder}", file=sys.stderr)
                    return folder
            except (OSError, ValueError):
                pass  # the same as a wrong hash: the checkpoint is not whole
            print(f"damaged, not used: {folder}", file=sys.stderr)
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
