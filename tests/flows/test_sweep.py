"""Whole studies on a stub graph, with the server that Prefect starts by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
REPORT = {  # a report that shows the study's beta, and breaks at 0.5
    "cmd": "mkdir -p report && cd report && echo ${rft.beta} > report.md && test ${rft.beta} != 0.5 && "
    "echo better > summary.txt && echo '{}' > metrics.json",
    "params": ["rft"],
    "outs": ["report"],
}


@pytest.fixture
def sweep(tmp_path):
    """Runs `python -m flows.sweep` with arguments in a checkout of its own."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True, cwd=tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": REPORT}}))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    variables.pop("PREFECT_API_URL", None)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flows.sweep", *arguments]
        return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=180)

    return run


@pytest.mark.slow
def test_a_multirun_keeps_every_study_and_names_each_that_failed(sweep, tmp_path):
    """The experiment file alone says that it sweeps; the command line gives the values."""
    done = sweep("+experiment=fsod_beta", "rft.beta=0,0.5,0.04,nan", "study=mine")
    assert done.returncode == 1
    assert "study mine (rft.beta=0.5 +experiment=fsod_beta study=mine) failed: stage report failed" in done.stderr
    assert "study mine (rft.beta=nan +experiment=fsod_beta study=mine) failed: " in done.stderr
    jobs = {int(file.parent.parent.name): file for file in tmp_path.glob("studies/mine/*/*/report/report.md")}
    assert {job: file.read_text() for job, file in jobs.items()} == {0: "0.0\n", 2: "0.04\n"}
    assert yaml.safe_load((jobs[0].parent.parent / "params.yaml").read_text())["rft"]["beta"] == 0.0
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["rft"]["beta"] == 0.04
    assert "params.yaml is now this study's" in done.stdout


@pytest.mark.slow
def test_a_single_study_with_a_bad_override_runs_nothing(sweep, tmp_path):
    done = sweep("+rft.lrr=1")
    assert done.returncode == 1
    assert "rft.lrr" in done.stderr
    assert not (tmp_path / "report").exists()
