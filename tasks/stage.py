"""One stage of `dvc.yaml` as a Prefect task, run by DVC in a process of its own. The only user of Prefect in tasks/.

DVC decides whether there is anything to do, restores what it has cached and records the result; Prefect shows it.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

LOGS = Path(".rft/logs")
NUM_TAIL_LINES = 20
SUPERVISE = Path(__file__).with_name("supervise.py")

_running: set[subprocess.Popen] = set()
_stopped = threading.Event()


class StageError(RuntimeError):
    """A stage that failed; the message names it and holds the end of its log."""


def dvc_command(name: str) -> list[str]:
    """DVC on this one stage. Stages run beside each other: each waits for the repository's lock rather than fail."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]


@contextmanager
def stages_end_with_this():
    """Leaving the block, by an exception too, stops every stage that still runs and lets none start."""
    _stopped.clear()
    try:
        yield
    finally:
        _stopped.set()
        for process in list(_running):
            process.stdin.close()  # the supervisor's sign to stop the group


def _forward(tail: TextIO, rest: str, logger) -> str:
    """Log the whole lines that were added, of a progress bar its last state; returns the line still being written."""
    *lines, rest = (rest + tail.read()).split("\n")
    for line in lines:
        if text := line.rstrip().rsplit("\r", 1)[-1]:
            logger.info(text)
    return rest


def _run(name: str, log: Path, logger) -> int:
    """The exit code of the stage. Its output goes to a file, which outlives this process, then to the logger."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with log.open("w") as output, log.open(encoding="utf-8", errors="replace", newline="\n") as tail:
        process = subprocess.Popen(
            [sys.executable, str(SUPERVISE), *dvc_command(name)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": programs, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        _running.add(process)
        if _stopped.is_set():  # the flow ended between the submission and here
            process.stdin.close()
        rest = ""
        while process.poll() is None:
            rest = _forward(tail, rest, logger)
            time.sleep(0.2)
        _forward(tail, rest + "\n", logger)
        _running.discard(process)
        process.stdin.close()
    return process.returncode


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def run_stage(name: str) -> None:
    """Bring the stage `name` up to date; `StageError` where DVC or the stage fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    code = _run(name, log, get_run_logger())
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_TAIL_LINES:]
        raise StageError("\n".join([f"stage {name} failed with exit code {code}; the end of {log}:", *lines]))
