"""Checkpoints of a run that may be cut off at any moment: written whole or not at all, and never trusted unread.

A checkpoint is a folder `step-N` with the state and a manifest of its hash, written under another name, synced and
renamed. They lie outside DVC's outs, which are removed before a stage runs, in a folder named by what the run is made
of: another run's state is never picked up.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch
import transformers

from tasks.models.training import Job

KEPT = 2
SECTIONS = ("model", "prompt", "rft", "reward", "grade")
TASKS = Path(__file__).parents[1]
CODE = [TASKS / name for name in ("rl", "graders", "models", "data")]  # that a step runs


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def identity(job: Job) -> str:
    """A hash of what a run depends on: parameters, seed, slice, initial weights, libraries, CODE."""
    digest = hashlib.sha256()
    parts = [job.policy, job.seed, torch.__version__, transformers.__version__]
    parts += [getattr(job.params, name).model_dump_json() for name in SECTIONS]
    digest.update("\n".join(map(str, parts)).encode())
    folders = [job.slice, *CODE, *([job.init] if job.init else [])]
    for file in sorted(file for folder in folders for file in folder.rglob("*") if file.suffix != ".pyc"):
        if file.is_file() and file.name != "history.json":  # it holds the seconds that making the weights took
            digest.update(f"{file.name} {_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


class Checkpoints:
    """The checkpoints of `job` in `folder`/<policy>-<slice>/<identity>."""

    def __init__(self, folder: Path, job: Job):
        self._stage = folder / f"{job.policy}-{job.slice.name}"
        self._folder = self._stage / identity(job)

    def save(self, step: int, state: dict) -> None:
        """Write the state after `step`, and keep the one before. Raises `OSError` (the older ones then stay)."""
        temporary = self._folder / "writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        torch.save(state, temporary / "state.pt")
        _sync(temporary / "state.pt")
        manifest = {"step": step, "sha256": _hash(temporary / "state.pt")}
        (temporary / "manifest.json").write_text(json.dumps(manifest))
        _sync(temporary / "manifest.json")
        _sync(temporary)
        shutil.rmtree(self._at(step), ignore_errors=True)
        temporary.rename(self._at(step))
        _sync(self._folder)
        for old in self._steps()[KEPT:]:
            shutil.rmtree(self._at(old))

    def load(self) -> dict | None:
        """The newest state that is whole, or None. What is passed over is named on stderr."""
        for step in self._steps():
            folder = self._at(step)
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                if manifest == {"step": step, "sha256": _hash(folder / "state.pt")}:
                    print(f"resumes after step {step}: {folder}", file=sys.stderr)
                    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
            except (OSError, ValueError):
                pass  # the same as a wrong hash: the checkpoint is not whole
            print(f"damaged, not used: {folder}", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove them, and what other runs of this stage left."""
        shutil.rmtree(self._stage, ignore_errors=True)

    def _at(self, step: int) -> Path:
        return self._folder / f"step-{step}"

    def _steps(self) -> list[int]:
        """Newest first."""
        names = [path.name.removeprefix("step-") for path in self._folder.glob("step-*")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)
