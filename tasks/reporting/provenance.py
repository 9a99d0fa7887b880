"""What it takes to make a report again: the versions and the commit it was made with."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.params import Params
from tasks.reporting.study import Study

PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "pycocotools", "dvc")
INPUTS = ("tasks", "conf", "models", "dvc.yaml", "params.yaml")  # what decides the numbers, beside the data


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the working directory, marked where code or configuration was changed since; None outside git."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git("status", "--porcelain", "--", *INPUTS)
    return f"{head} (with uncommitted changes)" if changed else head


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hashes(params: Params, study: Study, pool: Path) -> dict[str, str]:
    """SHA-256 of what the numbers depend on: the parameters, the test labels (they hold the pictures' pixel hashes),
    and each slice of training questions where the histories tell.
    """
    found = {
        "parameters": hashlib.sha256(params.model_dump_json().encode()).hexdigest(),
        "test.jsonl": hashlib.sha256((pool / "test.jsonl").read_bytes()).hexdigest(),
    }
    for run in study.histories:
        if run.policy == "sft" and run.train_sha256:
            found[f"slice k = {run.k}, seed {run.seed}"] = run.train_sha256
    return found
