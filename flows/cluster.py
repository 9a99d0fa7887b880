"""Where the stages of a flow run: in threads of its own process, on workers of Dask, or on workers of Ray.

All of them start a stage in the same way, through `tasks.stage`; a worker only has to see the workspace. A stage whose
worker died is run again by the next one, three times at most (Dask's and Ray's own count).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

RUNNERS = ("threads", "dask", "ray")
CODE = Path(__file__).resolve().parent.parent  # what workers import


class ClusterError(ValueError):
    """A cluster that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Cluster:
    """`limit` stages at a time, on the cluster at `address` or, without, on workers of this machine that end with the
    flow. `ClusterError` where that cannot be.
    """

    runner: str
    address: str | None
    limit: int

    def __post_init__(self):
        if self.runner not in RUNNERS:
            raise ClusterError(f"runner {self.runner!r}: must be one of {', '.join(RUNNERS)}")
        if not isinstance(self.limit, int) or self.limit < 1:
            raise ClusterError(f"limit {self.limit!r}: must be a number of stages, 1 or more")
        if self.address and self.runner == "threads":
            raise ClusterError(f"address {self.address!r}: threads have none; give the runner dask or ray too")

    def task_runner(self) -> TaskRunner:
        """Prefect's task runner; `ClusterError` where its packages are missing."""
        makers = {"threads": _threads, "dask": _dask, "ray": _ray}
        try:
            return makers[self.runner](self)
        except ModuleNotFoundError as error:
            install = f"pip install -c constraints.txt -e '.[{self.runner}]'"
            raise ClusterError(f"runner {self.runner}: {error}. It takes: {install}") from None


def _threads(cluster: Cluster) -> TaskRunner:
    return ThreadPoolTaskRunner(max_workers=cluster.limit)


def _dask(cluster: Cluster) -> TaskRunner:
    import dask
    from prefect_dask import DaskTaskRunner

    if cluster.address:
        return DaskTaskRunner(address=cluster.address)
    # a killed worker is started again; else Dask gives up for good one that is not back within 15 seconds
    dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    workers = {"n_workers": cluster.limit, "threads_per_worker": 1, "dashboard_address": ":0"}
    return DaskTaskRunner(cluster_kwargs=workers)


def _ray(cluster: Cluster) -> TaskRunner:
    import ray  # noqa: F401  (prefect_ray imports without it)
    from prefect_ray import RayTaskRunner

    # Ray hides every GPU from a task that asked Ray for none: ours are leased in tasks.locks. And it kills the children
    # of a worker that ends, but not theirs: tasks/supervise.py, before that has stopped its stage
    variables = {
        "PYTHONPATH": str(CODE),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_kill_child_processes_on_worker_exit": "0",
    }
    settings = {"runtime_env": {"env_vars": variables}}
    if not cluster.address:
        settings |= {"num_cpus": cluster.limit, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    return RayTaskRunner(address=cluster.address, init_kwargs=settings)


@contextmanager
def shared_server(cluster: Cluster) -> Iterator[None]:
    """One Prefect server for the flow and its workers, each of which else starts its own on the same database."""
    if url := PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            if error := client.api_healthcheck():
                raise ClusterError(
                    f"PREFECT_API_URL is {url}, where no Prefect server answers ({error}): start one there "
                    "(make ui) and wait until it is up, or unset it, and the run has a server of its own"
                )
        yield
    elif cluster.runner == "threads":
        yield
    elif cluster.address:
        raise ClusterError(
            f"PREFECT_API_URL is not set: the workers at {cluster.address} need a Prefect server that they can reach "
            "(prefect server start --host 0.0.0.0)"
        )
    else:
        server = SubprocessASGIServer()
        server.start()  # it ends with this process, as Prefect's own does: after the last messages to it
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield


def share_cores(cluster: Cluster) -> None:
    """Let stages that run beside each other on this machine share its cores."""
    if not cluster.address:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // cluster.limit)))
