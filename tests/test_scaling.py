"""Real stages beside each other, at tiny size: the results of a single process, and no workspace written to by two.

Minutes long. `make test-clusters` installs what they need.
"""

import hashlib
import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.test_pipeline import environment as prefect_server  # noqa: F401  (a fixture)
from tests.flows.test_pipeline import until
from tests.test_main_job import ENV, TINY, checkout, commit, run  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


def needs(package: str, extra: str):
    return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"pip install -e '.[{extra}]'")


def weights(workspace: Path) -> dict[str, str]:
    """Policy -> hash of its weights."""
    files = (workspace / "policies").glob("*/model.safetensors")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    "runner",
    [pytest.param("dask", marks=needs("prefect_dask", "dask")), pytest.param("ray", marks=needs("ray", "ray"))],
)
def test_workers_train_the_weights_that_a_single_process_trains(checkout, runner):  # noqa: F811
    """The warm-up and SFT beside each other on two workers, then in turn in one process."""
    run(checkout, sys.executable, "-m", "flows.compose", *TINY)
    run(checkout, sys.executable, "-m", "flows.pipeline", "sft", "warmup", "--runner", runner)
    on_workers = weights(checkout)
    shutil.rmtree(checkout / ".dvc" / "cache")
    run(checkout, sys.executable, "-m", "dvc", "repro", "-f", "sft@1-0", "warmup@1-0")
    assert set(on_workers) == {"sft-1-0", "warmup-1-0"}
    assert weights(checkout) == on_workers


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
def test_after_push_wipe_and_pull_from_s3_there_is_nothing_to_run(checkout, bucket):  # noqa: F811
    address, environment = bucket

    def dvc(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=checkout, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run(checkout, sys.executable, "-m", "flows.compose", *TINY)
    dvc("repro", "slice")
    commit(checkout)
    dvc("remote", "add", "-d", "s3", "s3://kshot/cache")
    dvc("remote", "modify", "s3", "endpointurl", address)
    dvc("push", "--run-cache")
    pool = sorted((checkout / "data").rglob("*.*"))
    shutil.rmtree(checkout / ".dvc" / "cache")
    shutil.rmtree(checkout / "data")
    dvc("pull", "--run-cache", "slice", "prepare")
    assert sorted((checkout / "data").rglob("*.*")) == pool
    assert "Running stage" not in dvc("repro", "slice")
    shutil.rmtree(checkout / "data")
    shutil.rmtree(checkout / ".dvc" / "cache")
    (checkout / "dvc.lock").unlink()  # a clone that never ran this study: the run-cache knows it all the same
    said = dvc("repro", "--pull", "slice")
    assert "Running stage" not in said and "is cached" in said
    assert sorted((checkout / "data").rglob("*.*")) == pool
