"""The main job in a checkout of its own, by the real commands at tiny size: it resumes after a kill, and every
experiment runs. Minutes long, so `make test-all`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.compose import CONF

pytestmark = pytest.mark.slow

ROOT = CONF.parent
FILES = sorted((CONF / "experiment").rglob("*.yaml"))
EXPERIMENTS = [str(file.relative_to(CONF / "experiment").with_suffix("")) for file in FILES]
TWINS = {"fsod": "digits", "ovd": "digits_ovd", "fgvc": "digits_fgvc", "grounding": "digits_grounding", "mg": "digits"}
TWINS |= {"reft": "stories", "reft_programs": "programs", "genes": "cases"}
PAPER = {"coco8": "digits", "lvis6": "digits", "mg": "digits", "ovd": "digits_ovd", "fgvc": "digits_fgvc"}
PAPER |= {"lisa": "digits_grounding", "gsm8k": "stories", "svamp": "stories", "mathqa": "stories"}
TWINS |= {f"paper/visual_rft_{name}": twin for name, twin in PAPER.items()}
TWINS |= {f"paper/reft_{name}": twin for name, twin in PAPER.items()} | {"paper/reft_gsm8k_programs": "programs"}
TINY = [
    "model=tiny", "prompt=short", "slice=all", "sft=tiny", "sft@warmup=tiny", "rft=tiny", "grid=single", "grid.k=[1]",
    "grid.seed=[0]", "slice.allow_fewer=true", "dataset.num_train=60", "dataset.num_val=12", "dataset.num_test=12",
    "warmup.steps=1", "warmup.epochs=null", "sft.steps=2", "sft.eval_steps=1", "rft.steps=2", "rft.warmup_steps=1",
    "rft.prompts_per_step=2", "rft.num_generations=2", "rft.eval_steps=1",
    "report.resamples=100",
]  # fmt: skip
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def checkout(tmp_path):
    return make_checkout(tmp_path)


def make_checkout(folder: Path) -> Path:
    """The working tree's files in a git repository of their own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def run(checkout: Path, *command: str) -> str:
    done = subprocess.run([*command], cwd=checkout, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def stage_processes(checkout: Path) -> list[str]:
    """Command lines of the stages that run in this checkout."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = (process / "cwd").resolve() == checkout
            command = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
        if here and "-m tasks." in command:
            found.append(command)
    return found


def test_a_killed_repro_is_finished_by_typing_it_again_and_a_third_runs_nothing(checkout):
    run(checkout, sys.executable, "-m", "flows.compose", *TINY)
    first = subprocess.Popen(["dvc", "repro"], cwd=checkout, env=ENV, stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 900
    while not any("tasks.rft" in command for command in stage_processes(checkout)):
        assert time.time() < deadline and first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(1)
    assert not stage_processes(checkout)  # the stage died with the dvc that ran it
    again = run(checkout, "dvc", "repro")
    assert "Running stage 'rft@grpo-1-0'" in again
    assert "Running stage 'prepare'" not in again and "Running stage 'warmup@1-0'" not in again
    assert {"base", "sft", "grpo"} <= set(json.loads((checkout / "report" / "metrics.json").read_text())["k=1"])
    assert "Running stage" not in run(checkout, "dvc", "repro")


def test_an_openai_job_is_imported_and_trained_by_two_commands(checkout):
    job = Path("tests/openai_job")
    files = ["--train", str(job / "train.jsonl"), "--validation", str(job / "valid.jsonl")]
    run(checkout, sys.executable, "-m", "flows.import_openai", str(job / "job.json"), *files, "--model", "tiny")
    run(checkout, sys.executable, "-m", "flows.sweep", "+experiment=sums")
    policy = checkout / "policies" / "grpo-64-0"
    events = list(map(json.loads, (policy / "events.jsonl").read_text().splitlines()))
    assert [event["data"]["step"] for event in events] == list(range(17))
    valid = {e["data"]["step"]: e["data"]["scores"]["valid_reward_mean"] for e in events if e["data"]["step"] % 4 == 0}
    best = sorted(valid, key=lambda step: -valid[step])[:3]
    assert sorted(folder.name for folder in (policy / "checkpoints").iterdir()) == sorted(f"step-{n}" for n in best)
    assert {"base", "sft", "grpo"} <= set(json.loads((checkout / "report" / "metrics.json").read_text())["k=64"])


def commit(checkout: Path) -> None:
    run(checkout, "git", "add", "-A")
    run(checkout, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "study")


def test_an_experiment_is_run_and_compared_by_dvc(checkout):
    """`dvc exp run -S` runs what the change reaches; metrics, plots and experiments show it beside what was."""
    run(checkout, sys.executable, "-m", "flows.compose", *TINY)
    commit(checkout)  # DVC keeps its experiments in git
    run(checkout, "dvc", "repro")
    commit(checkout)
    ran = run(checkout, "dvc", "exp", "run", "-n", "faster", "-S", "rft.learning_rate=0.005")
    assert "Running stage 'rft@grpo-1-0'" in ran and "Running stage 'sft@1-0'" not in ran
    shown = json.loads(run(checkout, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert {"grades/base/metrics.json", "grades/grpo-1-0/metrics.json", "report/metrics.json"} <= shown.keys()
    assert {"base", "sft", "grpo"} <= shown["report/metrics.json"]["data"]["k=1"].keys()
    changed = json.loads(run(checkout, "dvc", "metrics", "diff", "--json"))
    assert "grades/grpo-1-0/metrics.json" in changed and "grades/sft-1-0/metrics.json" not in changed
    plots = json.loads(run(checkout, "dvc", "plots", "diff", "HEAD", "--json"))["data"]
    runs = ["warmup-1-0", "sft-1-0", "grpo-1-0"]
    assert set(plots) == {f"curves/val/{name}.csv" for name in runs} | {"curves/reward/grpo-1-0.csv"}
    (curve,) = plots["curves/val/grpo-1-0.csv"]
    assert curve["revisions"] == ["workspace", "HEAD"]
    assert {"step", "reward"} <= curve["content"]["data"]["values"][0].keys()
    table = run(checkout, "dvc", "exp", "show", "--csv").splitlines()
    assert "rft.learning_rate" in table[0] and any("faster" in row and "0.005" in row for row in table[1:])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_at_tiny_size(checkout, experiment):
    """Those on real data run on the embedded twin of their task."""
    twin = TWINS.get(experiment) or TWINS[experiment.split("_")[0]]
    size = [
        f"dataset={twin}",
        *TINY,
        *(["dataset.num_train=200", "dataset.num_test=200"] if twin == "digits_ovd" else []),  # that show all 60 pairs
        "hydra.sweeper.params=null",
        "hydra.mode=RUN",
    ]
    run(checkout, sys.executable, "-m", "flows.sweep", f"+experiment={experiment}", *size)
    assert (checkout / "report" / "report.html").stat().st_size > 10_000
