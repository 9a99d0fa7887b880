"""Run the graph of `dvc.yaml` as a Prefect flow: one task run a stage, in parallel where the graph lets them.

    python -m flows.pipeline                        # everything
    python -m flows.pipeline grade_base sft         # these and what they need; `sft` is every sft@...
    python -m flows.pipeline --limit 4              # stages at a time (one, where they share a GPU)

Without PREFECT_API_URL the flow starts a server of its own for as long as it runs (`make ui` keeps one running).
At its end stands the verdict of the report, as a table artifact with links to the page and to MLflow.
A failed stage fails the flow (exit code 1); what does not depend on it still finishes, what does is not run.
"""

import argparse
import fcntl
import json
import logging
import os
import queue
import socket
import sys
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from uuid import UUID

import httpx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.context import get_run_context
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.params import ParamsError, load_params
from tasks.stage import StageError, run_stage, show_report, stages_end_with_this

logging.getLogger("httpx").setLevel(logging.WARNING)  # else every poll of the server is a line under Hydra

LOCK = Path(".rft/pipeline.lock")
REPORT = Path("report")  # what the stage of that name leaves
POLL_SECONDS = 2.0  # how often a run asks the server whether somebody has cancelled it


class PipelineError(RuntimeError):
    """Stages failed; the message names them and those that were not run for it."""


class PipelineCancelled(PipelineError):
    """Somebody cancelled the flow run `run_id`."""

    def __init__(self, run_id: UUID):
        super().__init__("cancelled")
        self.run_id = run_id


def read_graph(targets: list[str]) -> dict[str, set[str]]:
    """Stage name -> names of the stages it needs, of `targets` and all that they need (no target: the whole graph)."""
    repo = Repo()
    graph = repo.index.graph
    collected = [stage for target in targets for stage in repo.stage.collect(target, with_deps=True)] or graph
    stages = {stage for stage in collected if isinstance(stage, PipelineStage)}  # a data.dvc file has no command
    return {stage.name: {need.name for need in graph.successors(stage) if need in stages} for stage in stages}


def _raise_if_cancelled() -> None:
    """`PipelineCancelled` if somebody cancelled this flow run. A server that does not answer cancels nothing."""
    run_id = get_run_context().flow_run.id
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
    except (PrefectException, httpx.HTTPError, OSError):
        return
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        raise PipelineCancelled(run_id)


def _next_done(done: queue.SimpleQueue) -> str:
    while True:
        try:
            return done.get(timeout=POLL_SECONDS)
        except queue.Empty:
            _raise_if_cancelled()


@flow(name="pipeline", flow_run_name="{study}", persist_result=False, validate_parameters=False)
def pipeline(study: str, graph: dict[str, set[str]]) -> None:
    """Every stage of `graph` once its needs are met. `PipelineError` names what failed."""
    order = TopologicalSorter(graph)
    order.prepare()
    done: queue.SimpleQueue = queue.SimpleQueue()
    futures, errors = {}, {}
    num_running = 0
    with stages_end_with_this():
        while True:
            for name in order.get_ready():
                futures[name] = run_stage.submit(name, wait_for=[futures[need] for need in graph[name]])
                futures[name].add_done_callback(lambda _, name=name: done.put(name))
                num_running += 1
            if not num_running:
                break
            name = _next_done(done)
            num_running -= 1
            try:
                futures[name].result()
                order.done(name)
            except StageError as error:
                errors[name] = error
    if REPORT.name in futures.keys() - errors.keys():
        show_report(REPORT, study)
    if errors:
        not_run = sorted(set(graph) - set(futures))
        tail = f"\nnot run, since they need what failed: {', '.join(not_run)}" if not_run else ""
        raise PipelineError("\n\n".join(map(str, errors.values())) + tail)


@contextmanager
def _alone():
    """Hold this checkout's lock: two pipelines would run a stage twice. It is released however the process ends."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(f"a pipeline is already running in {Path.cwd()} (it holds {LOCK})") from None
        yield


def _tags() -> list[str]:
    return [f"host:{socket.gethostname()}", f"checkout:{Path.cwd()}"]


def close_leftovers() -> None:
    """Put right what a killed pipeline of this checkout left. Called under the lock: what seems to run here is dead."""
    rwlock = Path(".dvc/tmp/rwlock")
    try:
        json.loads(rwlock.read_text() or "{}")
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:  # torn by a kill while DVC wrote it, which refuses to start until it is gone
        rwlock.unlink()
    running = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    ours = FlowRunFilter(tags={"all_": _tags()})
    dead = Crashed(message="The process of this run is dead.")
    with get_client(sync_client=True) as client:
        for run in client.read_task_runs(flow_run_filter=ours, task_run_filter=TaskRunFilter(**running)):
            client.set_task_run_state(run.id, dead, force=True)
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags={"all_": _tags()}, **running)):
            client.set_flow_run_state(run.id, dead, force=True)


def run(study: str, targets: list[str], limit: int) -> None:
    """Run `targets` (none: all) and their needs, `limit` stages at a time at most; `PipelineError` if any fails."""
    graph = read_graph(targets)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // limit)))  # stages share the cores
    with _alone(), tags(*_tags()):
        close_leftovers()
        try:
            pipeline.with_options(task_runner=ThreadPoolTaskRunner(max_workers=limit))(study, graph)
        except PipelineCancelled as error:  # a flow that is being cancelled cannot say itself that it has ended
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(error.run_id, Cancelled(), force=True)
            raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the graph of dvc.yaml.")
    parser.add_argument("stages", nargs="*", help="stage names, with what they need; none: all")
    parser.add_argument("--limit", type=int, default=2, help="stages at a time (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        run(load_params().study, arguments.stages, arguments.limit)
    except (PipelineError, ParamsError, DvcException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
