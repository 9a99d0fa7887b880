"""Stage `report`: does RFT beat SFT here, by how much, how sure? As a page, as Markdown, as numbers, as text.

    python -m tasks.report --grades grades --policies policies --pool data/pool --out report

report.html (self-contained), report.md with figures/*.png, metrics.json (for `dvc metrics`), summary.txt (a terminal).
"""

import argparse
import json
from pathlib import Path

from tasks.params import Params, load_params
from tasks.reporting import figures, page, pictures
from tasks.reporting.compare import Comparison, as_metrics, compare
from tasks.reporting.page import Cell, Plot
from tasks.reporting.selection import Outcome, select
from tasks.reporting.study import Study, read_study
from tasks.reporting.theme import DARK, LIGHT
from tasks.reporting.words import name, summary


def report(params: Params, grades: Path, policies: Path, pool: Path, out: Path) -> dict:
    """Write the report of the grid's grades under `out`; returns the content of its metrics.json.

    `StudyError` (a ValueError) names a grade or policy that is missing or broken.
    """
    study = read_study(params.grid, grades, policies)
    comparisons = compare(study, params.report)
    plots = _plots(params, study, comparisons)
    outcomes = [(outcome, _cells(outcome, params, pool)) for outcome in _outcomes(params, study)]
    command = f"python -m tasks.report --grades {grades} --policies {policies} --pool {pool} --out {out}"
    shown = page.context(params, study, comparisons, plots, outcomes, command)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for old in (out / "figures").glob("*.png"):
        old.unlink()
    for file, png in [(p.file, p.light) for p in plots.values()] + [(c.file, c.png) for _, cs in outcomes for c in cs]:
        (out / file).write_bytes(png)
    metrics = as_metrics(comparisons)
    texts = {
        "report.html": page.render("report.html.j2", shown),
        "report.md": page.render("report.md.j2", shown),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "summary.txt": summary(shown["headlines"], comparisons, params.report.confidence, study)
        + f"\n\n{out / 'report.html'}\n",
    }
    for file, text in texts.items():
        (out / file).write_text(text, encoding="utf-8")
    return metrics


def _plots(params: Params, study: Study, comparisons: tuple[Comparison, ...]) -> dict[str, Plot]:
    algorithms, confidence = params.grid.algorithm, params.report.confidence
    policies = ", ".join(map(name, ["base", *params.grid.policy]))
    over_k, curves = (
        [figures.score_over_k(comparisons, algorithms, confidence, theme) for theme in (LIGHT, DARK)],
        [figures.curves(study, theme) for theme in (LIGHT, DARK)],
    )
    return {
        "score_over_k": Plot("figures/score_over_k.png", f"Mean reward of {policies} over k, with intervals", *over_k),
        "curves": Plot("figures/curves.png", "Training and validation reward over steps, by policy and k", *curves),
    }


def _outcomes(params: Params, study: Study) -> tuple[Outcome, ...]:
    return select(
        study,
        algorithm=params.grid.algorithm[0],
        k=study.ks[-1],
        seed=params.grid.seed[0],
        num=params.report.num_pictures,
    )


def _cells(outcome: Outcome, params: Params, pool: Path) -> list[Cell]:
    """Problems in words have none."""
    rft = name(params.grid.algorithm[0])
    cells = []
    for number, pair in enumerate((p for p in outcome.shown if p.sft.image is not None), start=1):
        layers = (
            pictures.gold_layer(pair.sft.gold),
            pictures.sft_layer(pair.sft.boxes, pair.sft.confidences),
            pictures.rft_layer(rft, pair.rft.boxes, pair.rft.confidences),
        )
        png = pictures.draw(pool / pair.sft.image, layers)
        cells.append(Cell(pair, f"figures/{outcome.name}_{number}.png", png))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.report", description="Report SFT against RFT over the grid.")
    for argument in ("grades", "policies", "pool", "out"):
        parser.add_argument(f"--{argument}", type=Path, required=True)
    arguments = parser.parse_args()
    report(load_params(), **vars(arguments))
    print((arguments.out / "summary.txt").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
