"""The flow on small graphs, with a real DVC and a real Prefect server: what runs, what is left, what is shown."""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, LogFilter
from prefect.exceptions import PrefectException
from prefect.states import Cancelling

from flows import pipeline as module
from flows.pipeline import Node, PipelineError, read_graph
from tasks.params import load_params
from tasks.stage import PAGES

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = shlex.quote(sys.executable)


def stage(cmd: str, out: str, deps: tuple[str, ...] = ()) -> dict:
    return {"cmd": cmd, "outs": [out], **({"deps": list(deps)} if deps else {})}


# two chains that do not need each other, one of which breaks in its middle
CHAINS = {
    "start": stage("echo s > start", "start"),
    "bad": stage("echo 'no such category: unicorn' && exit 3", "bad", ["start"]),
    "after_bad": stage("cp bad after_bad", "after_bad", ["bad"]),
    "good": stage("sleep 1 && cp start good", "good", ["start"]),
    "after_good": stage("cp good after_good", "after_good", ["good"]),
}
# a stage that says which process it is and then works for ever; it takes SIGTERM lightly
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += "open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
LONG = {"long": stage(f'{PYTHON} -c "{STUBBORN}"', "never")}
# a training that waits between its first and its last step, and a report
TRAINS = stage(
    "echo a word of the stage && echo 'progress: grpo step 1 of 4, reward=0.500, 00:09 left' && "
    "while [ ! -e go ]; do sleep 0.1; done && echo 'progress: grpo step 4 of 4, reward=0.750, 00:00 left' && touch p",
    "p",
)
METRICS = '{"k=1": {"sft": 0.5, "ap": {"sft": 0.4}, "grpo-sft": {"estimate": 0.25, "verdict": "better"}}}'
REPORTS = stage(
    f"mkdir -p report && echo '{METRICS}' > report/metrics.json && touch report/report.html && "
    "printf 'At k = 1, GRPO scores 0.75.\\n\\nmore\\n' > report/summary.txt",
    "report",
    ("p",),
)
PAIR = {name: stage(f"date +%s.%N > {name} && sleep 3 && date +%s.%N >> {name}", name) for name in ("one", "two")}


def serve(home: Path) -> tuple[dict, subprocess.Popen]:
    """Environment variables that point at a Prefect server, and the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    server = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with SyncPrefectClient(variables["PREFECT_API_URL"]) as client:
            until(lambda: client.api_healthcheck() is None, 600)
    except BaseException:
        server.kill()
        raise
    return variables, server


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a server which lasts as long as the module."""
    variables, server = serve(tmp_path_factory.mktemp("prefect"))
    yield variables
    server.terminate()
    server.wait(30)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty DVC repository as working directory. Fill it with `write_graph`."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def write_graph(stages: dict) -> None:
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def start(environment: dict, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "flows.pipeline", *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell leaves it ignored
    )


def finish(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str]:
    """Exit code and what went to stderr."""
    errors = process.communicate(timeout=seconds)[1]
    return process.returncode, errors


def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def long_stage_pid() -> int:
    until(lambda: Path("pid").is_file() and Path("pid").read_text())
    return int(Path("pid").read_text())


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def artifacts(environment: dict, flow_run_id: UUID) -> dict:
    """{key: the artifact} of a flow run and its task runs."""
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id={"any_": [flow_run_id]}))
    return {artifact.key: artifact for artifact in found}


def flow_runs(environment: dict) -> list[tuple[str, dict]]:
    """Of this checkout: (state of the flow run, task run name -> state), the latest first."""
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        ours = [run for run in client.read_flow_runs() if f"checkout:{Path.cwd()}" in run.tags]
        ours.sort(key=lambda run: run.created, reverse=True)
        tasks = client.read_task_runs()
    return [
        (run.state_type.value, {t.name: t.state_type.value for t in tasks if t.flow_run_id == run.id}) for run in ours
    ]


def test_a_failed_stage_fails_the_flow_and_stops_only_what_needs_it(environment, checkout):
    """Nor does a report that cannot be shown hide it."""
    write_graph(CHAINS | {"report": stage("mkdir report", "report")})
    code, errors = finish(start(environment))
    assert code == 1
    assert "stage bad failed" in errors
    assert "no such category: unicorn" in errors  # the end of the stage's own output
    assert "not run, since they need what failed: after_bad" in errors
    assert "the report is not shown: FileNotFoundError" in errors
    assert Path("after_good").is_file()
    assert "unicorn" in Path(".rft/logs/bad.log").read_text()
    states = {"start": "COMPLETED", "bad": "FAILED", "good": "COMPLETED", "after_good": "COMPLETED"}
    states["report"] = "COMPLETED"
    until(lambda: flow_runs(environment) == [("FAILED", states)])  # task runs reach the server a little later


def test_progress_the_verdict_and_the_stages_words_are_shown(environment, checkout):
    """While the training goes on its artifact tells how far it is; at the end there is a table, and a link."""
    write_graph({"rft": {"matrix": {"point": ["grpo-1-0"]}, **TRAINS}, "report": REPORTS})
    run_page = "http://127.0.0.1:5000/#/experiments/1/runs/2"
    PAGES.parent.mkdir(exist_ok=True)
    PAGES.write_text(json.dumps({"another study": "http://other", load_params().study: run_page}))
    flow = start(environment)
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        until(lambda: any(f"checkout:{checkout}" in run.tags for run in client.read_flow_runs()), 60)
        (run,) = [run for run in client.read_flow_runs() if f"checkout:{checkout}" in run.tags]
        until(lambda: "rft-grpo-1-0" in artifacts(environment, run.id))
        shown = artifacts(environment, run.id)["rft-grpo-1-0"]
        assert (shown.type, shown.data) == ("progress", 25.0)
        assert shown.description == "grpo: step 1 of 4, reward=0.500, 00:09 left"
        Path("go").touch()
        assert finish(flow)[0] == 0
        shown = artifacts(environment, run.id)
        assert shown["rft-grpo-1-0"].data == 100.0
        table = json.loads(shown["verdict"].data)
        said, links = shown["verdict"].description.split("\n\n")
        assert said == "At k = 1, GRPO scores 0.75."
        assert links.splitlines() == [
            f"- [report.html]({(checkout / 'report' / 'report.html').as_uri()})",
            f"- [report.html in MLflow]({run_page}/artifacts/report/report.html)",
            f"- [the study in MLflow]({run_page})",
        ]
        assert [(row["k"], row["policy"], row["estimate"], row["verdict"]) for row in table] == [
            ("k=1", "sft", 0.5, None), ("k=1", "grpo-sft", 0.25, "better")
        ]  # fmt: skip
        assert (checkout / "report" / "report.html").as_uri() in shown["report"].data
        assert run_page in shown["mlflow"].data
        logs = client.read_logs(LogFilter(flow_run_id={"any_": [run.id]}))
        assert "a word of the stage" in {log.message for log in logs if log.task_run_id is not None}


@pytest.mark.parametrize("error", [PrefectException("down"), httpx.ConnectError("down"), OSError("down")])
def test_a_server_that_is_down_at_the_end_is_a_warning(monkeypatch, caplog, error):
    def show_report(*_):
        raise error

    monkeypatch.setattr(module, "show_report", show_report)
    monkeypatch.setattr(module, "get_run_logger", logging.getLogger)
    module._show("digits")
    assert f"the report is not shown: {error!r}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("fails", [True, False])
def test_a_server_that_dies_before_the_end_changes_no_result(tmp_path, checkout, fails):
    """It takes the report's table and the state of the flow run along, not the name of a failed stage."""
    variables, server = serve(tmp_path / "prefect")
    kills = stage(f"mkdir report && kill {server.pid} && sleep 3", "report")
    write_graph({"report": kills} | ({"bad": CHAINS["bad"] | {"deps": []}} if fails else {}))
    code, errors = finish(start(variables | {"PREFECT_CLIENT_MAX_RETRIES": "0"}), 300)
    server.wait(30)
    assert code == int(fails) and "Prefect could not be told: ConnectError" in errors
    assert ("stage bad failed" in errors[errors.index("Prefect could not be told") :]) is fails


@pytest.mark.slow
def test_a_named_stage_runs_with_what_it_needs_and_nothing_else(environment, checkout):
    write_graph(CHAINS)
    assert finish(start(environment, "good"))[0] == 0
    assert sorted(name for name in CHAINS if Path(name).exists()) == ["good", "start"]


def test_an_unknown_stage_is_refused_by_name(checkout, monkeypatch, capsys):
    write_graph(CHAINS)
    monkeypatch.setattr(sys, "argv", ["pipeline", "none_such"])
    assert module.main() == 1
    assert "none_such" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "together"), [("1", False), ("2", True)])
def test_the_limit_says_how_many_stages_run_at_a_time(environment, checkout, limit, together):
    write_graph(PAIR)
    assert finish(start(environment, "--limit", limit))[0] == 0
    spans = sorted([float(word) for word in Path(name).read_text().split()] for name in PAIR)
    assert (spans[1][0] < spans[0][1]) is together


def test_a_killed_flow_leaves_no_process_and_the_next_one_cleans_up(environment, checkout):
    write_graph(LONG)
    flow = start(environment)
    pid = long_stage_pid()
    code, errors = finish(start(environment))  # a second one beside it
    assert (code, "already running" in errors) == (1, True)
    flow.send_signal(signal.SIGKILL)
    until(lambda: ended(pid))
    finish(flow)
    Path(".dvc/tmp/rwlock").write_text('{"torn')  # what a kill at a bad moment leaves of it
    write_graph({"long": stage("echo done > never", "never")})
    assert finish(start(environment))[0] == 0
    until(lambda: [state for state, _ in flow_runs(environment)] == ["COMPLETED", "CRASHED"])
    assert "RUNNING" not in flow_runs(environment)[1][1].values()


@pytest.mark.parametrize("sent", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_an_interrupted_flow_takes_its_stages_along(environment, checkout, sent):
    write_graph(LONG)
    flow = start(environment)
    pid = long_stage_pid()
    flow.send_signal(sent)
    assert finish(flow)[0] != 0
    assert ended(pid)


@pytest.mark.slow
def test_cancelling_in_the_ui_stops_the_flow(environment, checkout):
    write_graph(LONG)
    flow = start(environment)
    pid = long_stage_pid()
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        (run,) = [run for run in client.read_flow_runs() if f"checkout:{checkout}" in run.tags]
        client.set_flow_run_state(run.id, Cancelling())
    assert finish(flow)[0] != 0
    assert ended(pid)
    assert [state for state, _ in flow_runs(environment)] == ["CANCELLED"]


def test_the_graph_is_dvcs(checkout):
    matrix = {"matrix": {"k": [1, 2]}, **stage("cp start m${item.k}", "m${item.k}", ["start"])}
    write_graph({"start": CHAINS["start"], "m": matrix})
    Path("data").write_text("not a stage")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], check=True)
    start = Node(frozenset(), 0)
    needs_it = Node(frozenset({"start"}), 0)
    assert read_graph([]) == {"start": start, "m@1": needs_it, "m@2": needs_it}
    assert read_graph(["m@2"]) == {"start": start, "m@2": needs_it}
    assert read_graph(["m"]) == read_graph([])


def test_a_stage_says_how_many_gpus_it_needs(checkout):
    """The number may come from params.yaml, as that of a training's processes does."""
    write_graph({"a": {**CHAINS["start"], "meta": {"gpus": "${rft.num_generations}"}}})
    assert read_graph([])["a"].num_gpus == yaml.safe_load(Path("params.yaml").read_text())["rft"]["num_generations"]
    write_graph({"a": {**CHAINS["start"], "meta": {"gpus": "two"}}})
    with pytest.raises(PipelineError, match="a: meta: gpus: 'two'"):
        read_graph([])
