"""Stage `curves`: how the policies of the grid were trained, as `dvc plots` reads it.

    python -m tasks.curves --policies policies --out curves

val/<policy>-<k>-<seed>.csv (the grader's mean reward on val over steps, of the warm-up too) and reward/... (the mean
reward of the rollouts, of RFT alone). `dvc plots diff` lays them over those of another commit or experiment.
"""

import argparse
import csv
import itertools
import json
from pathlib import Path

from tasks.params import Grid, load_params

FIELDS = ["step", "reward"]


def curves(grid: Grid, policies: Path, out: Path) -> None:
    """Write the curves of every run that `grid` names; one that has no reward to show leaves no file."""
    for folder in ("val", "reward"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    own = [grid.init] if grid.init == "warmup" else []  # the SFT policy is in grid.policy
    for policy, k, seed in itertools.product([*own, *grid.policy], grid.k, grid.seed):
        name = f"{policy}-{k}-{seed}"
        history = json.loads((policies / name / "history.json").read_text(encoding="utf-8"))
        for folder, rows in (("val", history["val"]), ("reward", history["steps"])):
            if rewarded := [row for row in rows if row.get("reward") is not None]:
                _write(out / folder / f"{name}.csv", rewarded)


def _write(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.curves", description="Training curves for `dvc plots`.")
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    curves(load_params().grid, **vars(parser.parse_args()))


if __name__ == "__main__":
    main()
