"""A study as a Prefect deployment, which a work pool runs wherever its workers are: docs/scaling.md.

prefect work-pool create kshot --type process          # or kubernetes
KSHOT_WORKSPACE=$PWD prefect deploy --name kshot       # reads prefect.yaml
prefect worker start --pool kshot
prefect deployment run study/kshot --param 'overrides=["+experiment=fsod"]'
"""

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.cluster import Cluster
from flows.compose import compose
from flows.sweep import run_study


@flow(name="study", persist_result=False)
def study(overrides: list[str] | None = None, runner: str = "threads", address: str | None = None, limit: int = 2):
    """The study that conf/ and `overrides` (those of flows.sweep) give; its report goes to studies/<study>/<run>."""
    overrides = overrides or []
    params = compose(overrides)
    kept = Path("studies") / params["study"] / flow_run.id
    kept.mkdir(parents=True)
    run_study(params, overrides, kept, Cluster(runner, address, limit))
