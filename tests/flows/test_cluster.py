"""Stages on real workers of Dask and Ray, on small graphs: what runs where, and what a killed worker costs."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cluster import Cluster, ClusterError, shared_server
from tests.flows.test_pipeline import (  # noqa: F401  (fixtures)
    PYTHON,
    checkout,
    ended,
    environment,
    finish,
    flow_runs,
    start,
    until,
    write_graph,
)

PACKAGES = {"dask": "prefect_dask", "ray": "prefect_ray"}
RUNNERS = [
    pytest.param(
        runner,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"pip install -e '.[{runner}]'"),
        ],
    )
    for runner, package in PACKAGES.items()
]
# each says in `ran` that it starts, on which GPU and under which worker, then waits until the test lets it end
STAGE = "import os, sys, time; from pathlib import Path; import psutil; name = sys.argv[1]; "
STAGE += "worker = next(p for p in psutil.Process().parents() if 'supervise.py' in ' '.join(p.cmdline())).ppid(); "
STAGE += "gpu = os.environ.get('CUDA_VISIBLE_DEVICES'); "
STAGE += "Path('ran').open('a').write(f'{name} {os.getpid()} {worker} {gpu}\\n'); "
STAGE += "[time.sleep(0.1) for _ in iter(lambda: Path('go').exists(), True)]; Path(name).write_text(name)"


def waiting_stage(name: str, needs: tuple[str, ...] = ()) -> dict:
    return {"cmd": f'{PYTHON} -c "{STAGE}" {name}', "outs": [name], "deps": list(needs), "meta": {"gpus": 1}}


GRAPH = {"one": waiting_stage("one"), "two": waiting_stage("two"), "last": waiting_stage("last", ("one", "two"))}


def until_started(num: int, flow: subprocess.Popen) -> None:
    until(lambda: len(ran()) >= num or flow.poll() is not None, 900)
    assert flow.poll() is None, finish(flow)


def ran() -> list[tuple[str, int, int, str]]:
    """(stage, its process, its worker's process, its GPU) of each start."""
    lines = Path("ran").read_text().splitlines() if Path("ran").exists() else []
    return [(name, int(process), int(worker), gpu) for name, process, worker, gpu in map(str.split, lines)]


@pytest.mark.parametrize("runner", RUNNERS)
def test_stages_run_on_two_workers_and_that_of_a_killed_one_runs_again(environment, checkout, runner, tmp_path_factory):  # noqa: F811
    """With two GPUs, of which each stage has one to itself; the rerun has one again, once the dead one's are free."""
    write_graph(GRAPH)
    leases = tmp_path_factory.mktemp(
        "t"
    )  # of a short name: Ray's sockets lie in it, and a path of theirs has 107 bytes
    machine = {"CUDA_VISIBLE_DEVICES": "7,9", "TMPDIR": str(leases)}
    flow = start({**environment, **machine}, "--runner", runner)
    until_started(2, flow)
    (_, kept, worker, gpu), (name, process, killed, other) = ran()
    assert {gpu, other} == {"7", "9"}
    assert worker != killed and flow.pid not in (worker, killed)
    os.kill(killed, signal.SIGKILL)
    until_started(3, flow)
    assert ended(process) and not ended(kept)  # it is gone before its second run starts
    again = ran()[2]
    assert again[0] == name and again[3] == other
    Path("go").touch()
    code, errors = finish(flow, 900)
    assert code == 0, errors
    assert [start[0] for start in ran()].count(name) == 2 and len(ran()) == 4
    assert all(Path(name).read_text() == name for name in GRAPH)
    until(lambda: flow_runs(environment) == [("COMPLETED", dict.fromkeys(GRAPH, "COMPLETED"))])


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_killed_flow_leaves_no_stage_on_its_workers(environment, checkout, runner):  # noqa: F811
    write_graph({"one": GRAPH["one"]})
    flow = start(environment, "--runner", runner, "--limit", "1")
    until_started(1, flow)
    flow.send_signal(signal.SIGKILL)
    until(lambda: ended(ran()[0][1]), 120)
    finish(flow)
    Path("go").touch()
    code, errors = finish(start(environment, "--runner", runner, "--limit", "1"), 900)
    assert code == 0, errors


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("slurm", None, 2), "runner 'slurm': must be one of threads, dask, ray"),
        (("dask", None, 0), "limit 0: must be a number of stages"),
        (("dask", None, "two"), "limit 'two': must be a number of stages"),
        (("threads", "tcp://here:8786", 2), "address 'tcp://here:8786': threads have none"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ClusterError, match=said):
        Cluster(*settings)


@pytest.mark.parametrize("runner", PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(runner, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[runner], None)
    with pytest.raises(ClusterError, match=rf"runner {runner}: .* pip install -c constraints.txt -e '\.\[{runner}\]'"):
        Cluster(runner, None, 2).task_runner()


def test_workers_elsewhere_need_a_server_that_they_reach(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ClusterError, match="PREFECT_API_URL"), shared_server(Cluster("dask", "tcp://there:8786", 2)):
        pass


def test_a_server_that_does_not_answer_is_named_before_any_work():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ClusterError, match=r"PREFECT_API_URL is http://127\.0\.0\.1:9/api, where no"),
        shared_server(Cluster("threads", None, 2)),
    ):
        pass
