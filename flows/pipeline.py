"""Run the graph of `dvc.yaml` as a Prefect flow: one task run a stage, in parallel where the graph lets them.

    python -m flows.pipeline                        # everything
    python -m flows.pipeline grade_base sft         # these and what they need; `sft` is every sft@...
    python -m flows.pipeline --limit 4              # stages at a time
    python -m flows.pipeline --runner dask          # on workers of Dask (or ray), here or at --address: docs/scaling.md

A stage of models gets a GPU of its machine to itself, if that has any (dvc.yaml: meta: gpus).
Without PREFECT_API_URL the flow starts a server of its own for as long as it runs (`make ui` keeps one running).
At its end stands the verdict of the report, as a table artifact with links to the page and to MLflow.
A failed stage fails the flow (exit code 1); what does not depend on it still finishes, what does is not run.
"""

import argparse
import fcntl
import logging
import queue
import socket
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from uuid import UUID, uuid4

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.context import get_run_context
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed

from flows.cluster import RUNNERS, Cluster, ClusterError, share_cores, shared_server
from tasks.params import ParamsError, load_params
from tasks.pulse import at_work
from tasks.stage import UNREACHABLE, StageError, run_stage, show_report

logging.getLogger("httpx").setLevel(logging.WARNING)  # else every poll of the server is a line under Hydra

LOCK = Path(".rft/pipeline.lock")
IDENTITY = Path(".rft/id")  # of this checkout, on whichever machine of a cluster its flow runs
REPORT = Path("report")  # what the stage of that name leaves
POLL_SECONDS = 2.0  # how often a run asks the server whether somebody has cancelled it


class PipelineError(RuntimeError):
    """Stages failed; the message names them and those that were not run for it."""


class PipelineCancelled(PipelineError):
    """Somebody cancelled the flow run `run_id`."""

    def __init__(self, run_id: UUID):
        super().__init__("cancelled")
        self.run_id = run_id


@dataclass(frozen=True)
class Node:
    """A stage: the names of the stages it needs, and how many GPUs of one machine."""

    needs: frozenset[str]
    num_gpus: int


def _num_gpus(stage: PipelineStage) -> int:
    num = (stage.meta or {}).get("gpus", 0)
    if type(num) is not int or num < 0:
        raise PipelineError(f"dvc.yaml: {stage.name}: meta: gpus: {num!r} must be a number of GPUs, 0 or more")
    return num


def read_graph(targets: list[str]) -> dict[str, Node]:
    """The stages by name: `targets` and all that they need (no target: the whole graph)."""
    repo = Repo()
    graph = repo.index.graph
    collected = [stage for target in targets for stage in repo.stage.collect(target, with_deps=True)] or graph
    stages = {stage for stage in collected if isinstance(stage, PipelineStage)}  # a data.dvc file has no command
    needs = {stage: frozenset(need.name for need in graph.successors(stage) if need in stages) for stage in stages}
    return {stage.name: Node(needs[stage], _num_gpus(stage)) for stage in stages}


def _raise_if_cancelled() -> None:
    """`PipelineCancelled` if somebody cancelled this flow run. A server that does not answer cancels nothing."""
    run_id = get_run_context().flow_run.id
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
    except UNREACHABLE:
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
def pipeline(study: str, graph: dict[str, Node], limit: int, ended: list[PipelineError | None]) -> None:
    """Every stage of `graph` once its needs are met, `limit` at a time. `PipelineError` names what failed; it, or None,
    is left in `ended`, where it is also found when Prefect cannot be told of it.
    """
    order = TopologicalSorter({name: node.needs for name, node in graph.items()})
    order.prepare()
    done: queue.SimpleQueue = queue.SimpleQueue()
    ready: deque[str] = deque()
    running, states, errors = {}, {}, {}
    with at_work() as flow_at_work:
        while True:
            ready.extend(order.get_ready())
            while ready and len(running) < limit:
                name = ready.popleft()
                needs = [states[need] for need in graph[name].needs]
                running[name] = run_stage.submit(name, graph[name].num_gpus, flow_at_work, wait_for=needs)
                running[name].add_done_callback(lambda _, name=name: done.put(name))
            if not running:
                break
            name = _next_done(done)
            future = running.pop(name)  # kept, Dask would compute it again if the worker that has its result died
            try:
                future.result()
                states[name] = future.state
                order.done(name)
            except Exception as error:  # StageError, or what a cluster says whose workers died of this stage
                errors[name] = error
    if REPORT.name in states:
        _show(study)
    ended.append(_failed(errors, sorted(set(graph) - set(states) - set(errors))) if errors else None)
    if errors:
        raise ended[0]


def _show(study: str) -> None:
    """A view: a server that does not answer hides no failed stage and fails no study that is finished."""
    try:
        show_report(REPORT, study)
    except UNREACHABLE as error:
        get_run_logger().warning(f"the report is not shown: {error!r}")


def _failed(errors: dict[str, Exception], not_run: list[str]) -> PipelineError:
    tail = f"\nnot run, since they need what failed: {', '.join(not_run)}" if not_run else ""
    return PipelineError("\n\n".join(_told(name, error) for name, error in errors.items()) + tail)


def _told(name: str, error: Exception) -> str:
    return str(error) if isinstance(error, StageError) else f"stage {name} failed: {type(error).__name__}: {error}"


@contextmanager
def alone():
    """Hold this checkout's lock: two pipelines would run a stage twice. It is released however the process ends."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(f"a pipeline is already running in {Path.cwd()} (it holds {LOCK})") from None
        yield


def _identity() -> str:
    if not IDENTITY.is_file():
        IDENTITY.write_text(uuid4().hex)
    return f"workspace:{IDENTITY.read_text()}"


def close_leftovers() -> None:
    """End in Prefect what a killed pipeline of this checkout left. Called under the lock: what seems to run is dead."""
    running = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    ours = {"tags": {"all_": [_identity()]}}
    dead = Crashed(message="The process of this run is dead.")
    with get_client(sync_client=True) as client:
        of_ours = FlowRunFilter(**ours)
        for run in client.read_task_runs(flow_run_filter=of_ours, task_run_filter=TaskRunFilter(**running)):
            client.set_task_run_state(run.id, dead, force=True)
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(**ours, **running)):
            client.set_flow_run_state(run.id, dead, force=True)


def run(study: str, targets: list[str], cluster: Cluster) -> None:
    """Run `targets` (none: all) and their needs; `PipelineError` if any fails. Call it under `alone`."""
    graph = read_graph(targets)
    runner = cluster.task_runner()
    share_cores(cluster)
    with shared_server(cluster), tags(f"host:{socket.gethostname()}", f"checkout:{Path.cwd()}", _identity()):
        close_leftovers()
        ended: list[PipelineError | None] = []
        try:
            pipeline.with_options(task_runner=runner)(study, graph, cluster.limit, ended)
        except PipelineCancelled as error:  # a flow that is being cancelled cannot say itself that it has ended
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(error.run_id, Cancelled(), force=True)
            raise
        except UNREACHABLE as error:
            if not ended:
                raise
            print(f"the flow has ended, but Prefect could not be told: {error!r}", file=sys.stderr)
            if ended[0] is not None:
                raise ended[0] from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the graph of dvc.yaml.")
    parser.add_argument("stages", nargs="*", help="stage names, with what they need; none: all")
    parser.add_argument("--limit", type=int, default=2, help="stages at a time (default: %(default)s)")
    parser.add_argument("--runner", choices=RUNNERS, default="threads", help="where they run (default: %(default)s)")
    parser.add_argument("--address", help="of a cluster of Dask or Ray; without, it is started for this run")
    arguments = parser.parse_args()
    try:
        cluster = Cluster(arguments.runner, arguments.address, arguments.limit)
        with alone():
            run(load_params().study, arguments.stages, cluster)
    except (ClusterError, PipelineError, ParamsError, DvcException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
