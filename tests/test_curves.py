"""The stage `curves`: what `dvc plots` finds of a study's trainings."""

import csv
import json
import shutil

import pytest

from tasks.curves import curves
from tasks.params import Grid

GRID = Grid(k=[1], seed=[0], algorithm=["grpo"], policy=["sft", "grpo"])


@pytest.fixture
def policies(tmp_path):
    """One point: a warm-up of no steps, SFT with losses alone, GRPO with rewards."""
    histories = {
        "warmup-1-0": {"steps": [], "val": []},
        "sft-1-0": {"steps": [{"step": 1, "loss": 2.0}], "val": [{"step": 0, "reward": 0.4}]},
        "grpo-1-0": {
            "steps": [{"step": 1, "loss": 0.1, "reward": 0.5}],
            "val": [{"step": 0, "reward": 0.4}, {"step": 1, "reward": 0.6}],
        },
    }
    for name, history in histories.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.json").write_text(json.dumps(history))
    return tmp_path


def test_a_file_for_every_run_that_has_rewards(policies):
    curves(GRID, policies, policies / "out")
    found = {str(f.relative_to(policies / "out")): list(csv.DictReader(f.open())) for f in policies.rglob("*.csv")}
    assert found == {
        "val/sft-1-0.csv": [{"step": "0", "reward": "0.4"}],
        "val/grpo-1-0.csv": [{"step": "0", "reward": "0.4"}, {"step": "1", "reward": "0.6"}],
        "reward/grpo-1-0.csv": [{"step": "1", "reward": "0.5"}],
    }


def test_a_run_of_the_grid_that_is_missing_is_named(policies):
    with pytest.raises(FileNotFoundError, match="warmup-2-0"):
        curves(GRID.model_copy(update={"k": [2]}), policies, policies / "out")


def test_a_study_whose_rft_begins_with_sft_has_no_warmup(policies):
    shutil.rmtree(policies / "warmup-1-0")
    curves(GRID.model_copy(update={"init": "sft", "k_warmup": []}), policies, policies / "out")
    assert {f.name for f in (policies / "out" / "val").iterdir()} == {"sft-1-0.csv", "grpo-1-0.csv"}
