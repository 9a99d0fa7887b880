"""Real stages beside each other, at tiny size: the results of a single process, and no workspace written to by two.

Minutes long. `make test-clusters` installs what they need.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.flows.test_pipeline import environment as prefect_server  # noqa: F401  (a fixture)
from tests.flows.test_pipeline import until
from tests.test_main_job import ENV, TINY, checkout, commit, make_checkout, run  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


def needs(package: str, extra: str):
    return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"pip install -e '.[{extra}]'")


def tell(command: Sequence[str], folder: Path, environment: dict[str, str] = ENV) -> str:
    """What a command says on both channels; AssertionError with the end of it where it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def dvc(folder: Path, *words: str, environment: dict[str, str] = ENV) -> str:
    return tell([sys.executable, "-m", "dvc", *words], folder, environment)


def results(workspace: Path) -> dict[str, str]:
    """File -> hash of what a study has found: data, weights, every answer, curves, and all metrics but durations and
    memory.
    """
    hashed = ("data/**/*", "policies/*/*.safetensors", "grades/*/*.jsonl", "curves/*/*.csv")
    files = [file for pattern in hashed for file in workspace.glob(pattern) if file.is_file()]
    found = {file: file.read_bytes() for file in files}
    for file in [*workspace.glob("grades/*/metrics.json"), workspace / "report" / "metrics.json"]:
        told = json.loads(file.read_text())
        told.pop("seconds", None)
        found[file] = json.dumps(told).encode()
    table = pd.read_csv(workspace / "report" / "results.csv").drop(columns=["minutes", "peak_memory"])
    found[workspace / "report" / "results.csv"] = table.to_csv().encode()
    return {str(file.relative_to(workspace)): hashlib.sha256(content).hexdigest() for file, content in found.items()}


@pytest.fixture(scope="module")
def repro(tmp_path_factory) -> Path:
    """A checkout where plain `dvc repro` has run a whole tiny study in one process, committed."""
    folder = make_checkout(tmp_path_factory.mktemp("repro"))
    tell([sys.executable, "-m", "flows.compose", *TINY], folder)
    dvc(folder, "repro")
    commit(folder)
    return folder


def training_worker(workspace: Path) -> int | None:
    """The worker under which a stage trains by RL there, if one does."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "tasks.rft" in (process.info["cmdline"] or []) and Path(process.cwd()) == workspace:
                above = process.parents()
                return next((p.ppid() for p in above if "supervise.py" in " ".join(p.cmdline())), None)
    return None


@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "a worker killed in rft"])
@pytest.mark.parametrize(
    "runner",
    [pytest.param("dask", marks=needs("prefect_dask", "dask")), pytest.param("ray", marks=needs("ray", "ray"))],
)
def test_a_sweep_on_two_workers_finds_what_a_single_process_finds(checkout, repro, runner, kill):  # noqa: F811
    """Whole: prepare to report, file by file, in a checkout with a cache of its own."""
    words = [sys.executable, "-m", "flows.sweep", *TINY, f"cluster.runner={runner}", "cluster.limit=2"]
    environment = {**ENV, "PREFECT_HOME": str(checkout / ".rft" / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    (checkout / ".rft").mkdir()
    with (checkout / ".rft" / "said").open("w+") as said:
        sweep = subprocess.Popen(words, cwd=checkout, env=environment, stdout=said, stderr=subprocess.STDOUT)
        if kill:
            until(lambda: training_worker(checkout) or sweep.poll() is not None, 900)
            os.kill(training_worker(checkout), signal.SIGKILL)
        assert sweep.wait(1800) == 0, (checkout / ".rft" / "said").read_text()[-3000:]
    assert results(checkout) == results(repro)
    assert "Running stage" not in dvc(checkout, "repro")  # dvc.lock is whole, and holds what lies there


# a report that shows the study's beta, takes a while, and appends to a file that no other study may write to
REPORT = "mkdir -p report && cd report && echo ${rft.beta} | tee report.md summary.txt && sleep 5 && "
REPORT += "echo ${rft.beta} >> report.md && echo '{}' > metrics.json"
STUB = f"""
stages:
  prepare: {{cmd: mkdir -p data && date +%N > data/pool, outs: [data/pool]}}
  report: {{cmd: "{REPORT}", params: [rft], deps: [data/pool], outs: [report]}}
"""


@pytest.fixture
def studies(checkout):  # noqa: F811
    """A checkout whose graph is a stub: what it prepares differs each time that it is run."""
    (checkout / "dvc.yaml").write_text(STUB)
    (checkout / "dvc.lock").unlink(missing_ok=True)
    commit(checkout)
    return checkout


@needs("submitit", "slurm")
def test_jobs_of_submitit_run_beside_each_other_in_workspaces_of_their_own(studies):
    """Submitit's local executor runs jobs as SLURM's does, as processes of their own that take turns with nobody."""
    sweep = [sys.executable, "-m", "flows.sweep"]
    launcher = "hydra/launcher=submitit_local"
    alone = subprocess.run([*sweep, launcher], cwd=studies, env=ENV, capture_output=True, text=True)
    assert alone.returncode == 1 and "Hydra uses it with -m alone" in alone.stderr
    before = subprocess.check_output(["git", "status", "--porcelain"], cwd=studies, text=True)
    run(studies, *sweep, "-m", launcher, "rft.beta=0,0.04", "study=beside")
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=studies, text=True) == before
    jobs = {file.parent.parent.name: file.read_text() for file in studies.glob("studies/beside/*/*/report/report.md")}
    assert jobs == {"0": "0.0\n0.0\n", "1": "0.04\n0.04\n"}
    run(studies, *sweep, "-m", "rft.beta=0,0.04", "study=in_turn")  # Hydra's own launcher: one process
    in_turn = {f.parent.parent.name: f.read_text() for f in studies.glob("studies/in_turn/*/*/report/report.md")}
    assert in_turn == jobs
    assert (studies / "report" / "report.md").read_text() == jobs["1"]


@needs("submitit", "slurm")
def test_a_job_of_submitit_finds_what_a_single_process_finds(checkout, repro):  # noqa: F811
    commit(checkout)
    run(checkout, sys.executable, "-m", "flows.sweep", "-m", "hydra/launcher=submitit_local", *TINY)
    (kept,) = checkout.glob("studies/digits/*/0")  # of a job's workspace the report is kept
    found, wanted = results(kept), results(repro)
    assert found == {name: wanted[name] for name in ("report/metrics.json", "report/results.csv")}


def test_a_study_runs_as_a_deployment_on_a_work_pool(studies, prefect_server):  # noqa: F811
    """The four commands of flows/deployed.py, with a worker that takes processes: prefect.yaml is what deploys."""
    variables = {**prefect_server, "PATH": ENV["PATH"], "KSHOT_WORKSPACE": str(studies), "PYTHONPATH": str(studies)}

    def prefect(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *words], cwd=studies, env=variables,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    prefect("work-pool", "create", "kshot", "--type", "process")
    prefect("deploy", "--name", "kshot")
    prefect("deployment", "run", "study/kshot", "--param", 'overrides=["rft.beta=0.04","study=pooled"]')
    prefect("worker", "start", "--pool", "kshot", "--run-once")
    reports = studies / "studies" / "pooled"
    until(lambda: [f.read_text() for f in reports.glob("*/report/report.md")] == ["0.04\n0.04\n"], 300)


@pytest.fixture
def bucket():
    """The address of an S3 server with the bucket `kshot`, and the environment that reaches it."""
    import boto3
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    address = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=address, aws_access_key_id="test", aws_secret_access_key="test",
                          region_name="us-east-1")  # fmt: skip
    client.create_bucket(Bucket="kshot")
    yield address, {**ENV, **keys}
    server.stop()


@needs("moto", "clusters")
@needs("dvc_s3", "s3")
def test_after_push_wipe_and_pull_from_s3_there_is_nothing_to_run(repro, bucket, tmp_path):
    """A whole study, and a clone that has of it what git holds alone."""
    address, environment = bucket
    first, clone = tmp_path / "first", tmp_path / "clone"
    shutil.copytree(repro, first, symlinks=True)
    dvc(first, "remote", "add", "-d", "s3", "s3://kshot/cache")
    dvc(first, "remote", "modify", "s3", "endpointurl", address)
    commit(first)
    dvc(first, "push", "--run-cache", environment=environment)
    found = results(first)
    shutil.rmtree(first / ".dvc" / "cache")  # the clone can have none of it
    tell(["git", "clone", "-q", str(first), str(clone)], tmp_path)
    dvc(clone, "pull", "--run-cache", environment=environment)
    assert results(clone) == found
    assert "Running stage" not in dvc(clone, "repro", environment=environment)
    shutil.rmtree(clone / "data")
    shutil.rmtree(clone / ".dvc" / "cache")
    (clone / "dvc.lock").unlink()  # a clone that never ran this study: the run-cache knows it all the same
    said = dvc(clone, "repro", "--pull", "slice", environment=environment)
    assert "Running stage" not in said and "is cached" in said
    assert results(clone) == found
