"""What it takes to make a report again: the versions and the commit it was made with."""

import hashlib
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.params import Params
from tasks.reporting.study import Study

PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "pycocotools", "dvc")
INPUTS = ("tasks", "conf", "models", "dvc.yaml")  # what decides the numbers, beside the data and params.yaml
MADE_BY = re.compile(r"# Made from conf/ by: (.+)")


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


def repeat(command: str) -> str:
    """The commands that make the study again, a line each; `command` makes the report again from the same grades.

    A sweep composes params.yaml and does not commit it, so its first line, which says by what it was made, is needed.
    """
    made_at, path = commit(), Path("params.yaml")
    made_by = MADE_BY.match(path.read_text(encoding="utf-8")) if path.exists() else None
    lines = [f"git checkout {made_at.split()[0]}"] if made_at else []
    lines += [f"{made_by[1]}   # params.yaml; what was changed in it since stands below"] if made_by else []
    return "\n".join([*lines, "dvc repro   # the whole study", f"{command}   # this report from the grades alone"])


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
