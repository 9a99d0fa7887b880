"""One stage of `dvc.yaml` as a Prefect task, run by DVC in a process of its own. The only user of Prefect in tasks/.

DVC decides whether there is anything to do, restores what it has cached and records the result; Prefect shows it. The
task may run in the flow's process or in a worker on another machine that sees the flow's workspace.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from tasks.locks import Gpus, Lock, forget_dead
from tasks.progress import Progress, read_progress
from tasks.pulse import POLL_SECONDS, Flow, Listener

LOGS = Path(".rft/logs")
PAGES = Path(".rft/mlflow.json")  # {study: address of its run}, which tasks.tracking leaves
LOCKS = Path(".rft/locks")
UNREACHABLE = (PrefectException, httpx.HTTPError, OSError)  # how a Prefect server fails that does not answer
NUM_TAIL_LINES = 20
SUPERVISE = Path(__file__).with_name("supervise.py")


class StageError(RuntimeError):
    """A stage that failed; the message names it and holds the end of its log."""


def dvc_command(name: str) -> list[str]:
    """DVC on this one stage. Stages run beside each other: each waits for the repository's lock rather than fail."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]


@dataclass(frozen=True)
class _Held:
    """What a stage holds: descriptors for its supervisor to inherit, and what its environment is told of it."""

    files: list[int]
    environment: dict[str, str]


class _Shown:
    """What a stage says, in its task run: each line in the log, the last one about progress as an artifact too."""

    def __init__(self, name: str):
        self._logger = get_run_logger()
        self._key = re.sub("[^a-z0-9]+", "-", name.lower())  # Prefect allows no other characters
        self._artifact: UUID | None = None

    def forward(self, tail: TextIO, rest: str) -> str:
        """Show the whole lines that were added, of a bar its last state; returns the line still being written."""
        *lines, rest = (rest + tail.read()).split("\n")
        for line in lines:
            if text := line.rstrip().rsplit("\r", 1)[-1]:
                self._logger.info(text)
                if progress := read_progress(text):
                    self._show(progress)
        return rest

    def _show(self, progress: Progress) -> None:
        percent = 100 * progress.step / progress.steps
        said = f"{progress.name}: step {progress.step} of {progress.steps}, {progress.said}"
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, self._key, said)
            else:
                update_progress_artifact(self._artifact, percent, said)
        except UNREACHABLE as error:  # a view: no reason to stop a training
            self._logger.warning(f"the progress is not shown: {error!r}")


def _wait_for(take: Callable[[], bool], what: str, listener: Listener) -> None:
    told = False
    while True:
        if listener.ended():
            raise StageError("not run: the flow has ended")
        if take():
            return
        if not told:
            get_run_logger().info(f"waits for {what}")
            told = True
        time.sleep(POLL_SECONDS)


@contextmanager
def _held(name: str, num_gpus: int, flow: Flow, listener: Listener) -> Iterator[_Held]:
    """The stage itself and `num_gpus` GPUs of this machine, waited for and held."""
    lock = Lock(flow.workspace / LOCKS / name)
    try:
        gpus = Gpus(num_gpus)
    except ValueError as error:
        raise StageError(f"stage {name}: {error}") from None
    try:
        _wait_for(lock.take, "another worker, which still runs this stage", listener)
        _wait_for(gpus.take, f"{num_gpus} free GPU(s)", listener)
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus.names)} if gpus.names else {}
        yield _Held([*lock.files, *gpus.files], environment)
    finally:
        lock.release()
        gpus.release()


def _run(name: str, log: Path, flow: Flow, listener: Listener, held: _Held) -> int:
    """The exit code of the stage. Its output goes to a file, which outlives this process, then to Prefect."""
    shown = _Shown(name)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with log.open("w") as output, log.open(encoding="utf-8", errors="replace", newline="\n") as tail:
        process = subprocess.Popen(
            [sys.executable, str(SUPERVISE), *dvc_command(name)],
            cwd=flow.workspace,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": programs, "PYTHONUNBUFFERED": "1", **held.environment},
            start_new_session=True,
            pass_fds=held.files,
        )
        rest = ""
        try:
            while process.poll() is None:
                if listener.ended() and not process.stdin.closed:
                    process.stdin.close()  # the supervisor's sign to stop the group
                rest = shown.forward(tail, rest)
                time.sleep(POLL_SECONDS)
            shown.forward(tail, rest + "\n")
        finally:
            process.stdin.close()
    return process.returncode


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def run_stage(name: str, num_gpus: int, flow: Flow) -> None:
    """Bring the stage `name` up to date in the workspace of `flow`; `StageError` where DVC or the stage fails.

    It gets `num_gpus` GPUs of this machine to itself, if that has any, and ends when the flow does.
    """
    try:
        listener = Listener(flow)
    except FileNotFoundError as error:
        raise StageError(f"stage {name}: {error}") from None
    log = flow.workspace / LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _held(name, num_gpus, flow, listener) as held:
        forget_dead(flow.workspace / ".dvc" / "tmp", " ".join(dvc_command(name)[-4:]))
        code = _run(name, log, flow, listener, held)
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_TAIL_LINES:]
        shown = log.relative_to(flow.workspace)
        raise StageError("\n".join([f"stage {name} failed with exit code {code}; the end of {shown}:", *lines]))


def _verdicts(metrics: dict) -> list[dict]:
    """Rows of a table from the report's metrics.json: at each k the policies' mean rewards, and the differences."""
    rows = []
    for k, compared in metrics.items():
        for name, value in compared.items():
            if isinstance(value, float):
                rows.append({"k": k, "policy": name, "estimate": value})
            elif "verdict" in value:
                rows.append({"k": k, "policy": name, **value})
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: _short(row.get(column)) for column in columns} for row in rows]


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


def show_report(folder: Path, study: str) -> None:
    """The verdict of the report in `folder` as a table in Prefect, with links to the page and, where the study has been
    published, to its run in MLflow, which holds the page too: a browser follows no link from here to a file.
    """
    said = (folder / "summary.txt").read_text(encoding="utf-8").split("\n\n")[0]
    rows = _verdicts(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    links = [("report", "report.html", (folder / "report.html").resolve().as_uri())]
    pages = json.loads(PAGES.read_text(encoding="utf-8")) if PAGES.exists() else {}
    if run := pages.get(study):
        links.append(("mlflow-report", "report.html in MLflow", f"{run}/artifacts/report/report.html"))
        links.append(("mlflow", "the study in MLflow", run))
    listed = "\n".join(f"- [{text}]({address})" for _, text, address in links)
    create_table_artifact(rows, key="verdict", description=f"{said}\n\n{listed}")
    for key, text, address in links:
        create_link_artifact(address, link_text=text, key=key, description=said)
