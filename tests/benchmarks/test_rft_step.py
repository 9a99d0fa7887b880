"""The sweep's files and its bound of time, with measured figures made up; and the smallest real run."""

import argparse
import csv
from types import SimpleNamespace

import pytest

from benchmarks import rft_step

SMALLEST = dict(prompt_tokens=64, generations=2, completion=4, prompts=1, steps=1, beta=0.0, threads=1)


def test_a_sweep_leaves_a_table_and_a_plot(tmp_path, monkeypatch):
    figures = dict.fromkeys(rft_step.PARTS, 2.0)
    monkeypatch.setattr(rft_step, "measure", lambda args: dict.fromkeys(("kshot", "trl", "ratio"), figures))
    rows = rft_step.sweep(tmp_path / "out", argparse.Namespace(**SMALLEST, minutes=1))
    assert {(row["prompt_tokens"], row["generations"]) for row in rows} == {
        (p, g) for p in (64, 262, 512, 1024) for g in (2, 4, 8, 16)
    }
    with (tmp_path / "out" / "sweep.csv").open(newline="") as file:
        assert [row["ratio_step"] for row in csv.DictReader(file)] == ["2.0"] * 16
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 1000


def test_a_sweep_out_of_time_keeps_what_it_has_and_goes_on_when_typed_again(tmp_path, monkeypatch, capsys):
    clock = iter([0.0, 1.0, 61.0, *[70.0] * 16])
    figures = dict.fromkeys(rft_step.PARTS, 2.0)
    monkeypatch.setattr(rft_step, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(rft_step, "measure", lambda args: dict.fromkeys(("kshot", "trl", "ratio"), figures))
    assert len(rft_step.sweep(tmp_path, argparse.Namespace(**SMALLEST, minutes=1))) == 1
    assert "15 settings are left out" in capsys.readouterr().out
    rows = rft_step.sweep(tmp_path, argparse.Namespace(**SMALLEST, minutes=1))
    assert len({(row["prompt_tokens"], row["generations"]) for row in rows}) == len(rows) == 16
    assert "15 settings in at most" in capsys.readouterr().out


def test_the_picture_is_that_of_the_published_figures():
    assert rft_step.picture_side(262) == 392


@pytest.mark.slow
def test_the_smallest_run_measures_both_engines():
    result = rft_step.measure(argparse.Namespace(**SMALLEST))
    assert all(result[engine][part] > 0 for engine in ("kshot", "trl", "ratio") for part in rft_step.PARTS)
    assert result["tokens_per_pass"] == {"kshot": 72, "trl": 136}
