"""Stage `report`: does RFT beat SFT here, by how much, how sure? As a page, as Markdown, as numbers, as text.

    python -m tasks.report --grades grades --policies policies --pool data/pool --out report

report.html (self-contained), report.md with figures/*.png (and *.pdf for papers), results.csv and results.tex,
metrics.json (for `dvc metrics`) and statistics.json (every interval and p-value), summary.txt (a terminal);
cards/*.md, the card of each trained folder with its scores on test, to share the folder with.
"""

import argparse
import json
from pathlib import Path

from markupsafe import escape
from matplotlib.figure import Figure

from tasks.params import Params, load_params
from tasks.reporting import card, cases, figures, page, pictures, tables
from tasks.reporting.compare import Comparison, as_metrics, as_statistics, compare
from tasks.reporting.page import Cell, Panels, Plot
from tasks.reporting.selection import Outcome, select
from tasks.reporting.study import Study, read_study
from tasks.reporting.words import name, summary

MOST_BYTES = 4_800_000  # of the page's figures and cases: it is to stay under 5 MB, whatever the answers' length
NUM_IN_MARKDOWN = 2  # cases of each outcome, at the largest k


def report(params: Params, grades: Path, policies: Path, pool: Path, out: Path) -> dict:
    """Write the report of the grid's grades under `out`; returns the content of its metrics.json.

    `StudyError` (a ValueError) names a grade, policy or card that is missing or broken.
    """
    study = read_study(params.grid, grades, policies)
    comparisons = compare(study, params.report)
    drawn, quantities = _figures(params, study, comparisons), figures.recorded(study)
    training = [Panels(q.heading, tuple(_panel(study, k, q) for k in study.ks)) for q in quantities]
    seed, num = params.grid.seed[0], params.report.num_pictures
    places = max(1, num // len(study.grid.algorithm))
    outcomes = [o for k in study.ks for a in study.grid.algorithm for o in select(study, a, k, seed, places)]
    cells = [(o, _cells(o, params, pool)) for o in outcomes if o.k == study.ks[-1]]
    command = f"python -m tasks.report --grades {grades} --policies {policies} --pool {pool} --out {out}"
    plots = {file: _plot(params, file, alt, figure) for file, (alt, figure) in drawn.items()}
    room = MOST_BYTES - sum(len(p.svg) for p in (*plots.values(), *(p for panels in training for p in panels.plots)))
    views = cases.views(cases.drawn(outcomes), pool, page.case_writer(params, study), room)
    shown = page.context(params, study, comparisons, plots, training, outcomes, views, cells, pool, command)
    metrics, table = as_metrics(study, comparisons), tables.results(study, comparisons)
    texts = {
        "report.html": page.render("report.html.j2", shown),
        "report.md": page.render("report.md.j2", shown),
        "results.csv": table.to_csv(index=False),
        "results.tex": tables.latex(study, table),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "statistics.json": json.dumps(as_statistics(comparisons), indent=2) + "\n",
        "summary.txt": summary(_said(shown), comparisons, params.report.confidence, study)
        + f"\n\n{out / 'report.html'}\n",
    }
    _write_figures(out, {file: figure for file, (_, figure) in drawn.items()}, [c for _, some in cells for c in some])
    _make_empty(out / "cards")
    texts |= {f"cards/{point}.md": text for point, text in card.cards(params, table, policies).items()}
    for file, text in texts.items():
        (out / file).write_text(text, encoding="utf-8")
    return metrics


def _said(shown: dict) -> list[str]:
    """The first paragraph of summary.txt, which Prefect and MLflow show by itself: warnings before the verdict."""
    return [*(f"Not a fair comparison. {warning}" for warning in shown["warnings"]), *shown["headlines"]]


def _figures(params: Params, study: Study, comparisons: tuple[Comparison, ...]) -> dict[str, tuple[str, Figure]]:
    """{name: (what it shows, the figure)}, those that the study has."""
    algorithms, confidence = params.grid.algorithm, params.report.confidence
    policies = ", ".join(map(name, ["base", *params.grid.policy]))
    found = {
        "score_over_k": (
            f"Mean reward of {policies} over k, with intervals",
            figures.score_over_k(comparisons, algorithms, confidence),
        ),
        "difference_over_k": (
            f"Reward of {', '.join(map(name, algorithms))} minus that of SFT over k, with intervals",
            figures.difference_over_k(comparisons, algorithms, confidence),
        ),
    }
    if len(study.tasks) > 1:
        last = comparisons[-1].scores
        scores = {heading: {s.policy: s.metrics[metric] for s in last} for metric, heading in study.headings.items()}
        at, middle = f"at k = {study.ks[-1]}", f"{figures.middle(scores):.1f}"
        alt = f"{policies} on every metric of every task, {at}; the middle is {middle}"
        found["radar"] = (alt, figures.radar(scores, algorithms))
    if quantities := figures.recorded(study):
        told = ", ".join(quantity.heading.lower() for quantity in quantities)
        found["curves"] = (f"Training over steps, by policy and k: {told}", figures.curves(study, quantities))
    return found


def _plot(params: Params, file: str, alt: str, figure: Figure) -> Plot:
    return Plot(f"figures/{file}.png", alt, figures.inline(figure, escape(alt), params.grid.algorithm))


def _panel(study: Study, k: int, quantity: figures.Quantity) -> Plot:
    alt = f"{quantity.heading} over steps at k = {k}, a line a seed and their mean"
    return Plot("", alt, figures.inline(figures.panel(study, k, quantity), escape(alt), study.grid.algorithm))


def _cells(outcome: Outcome, params: Params, pool: Path) -> list[Cell]:
    """Problems in words have none."""
    cells = []
    with_picture = [case for case in outcome.shown if case.sft.image is not None]
    for number, case in enumerate(with_picture[:NUM_IN_MARKDOWN], start=1):
        rft = case.answers[outcome.algorithm]
        layers = (
            pictures.gold_layer(case.sft.gold),
            pictures.sft_layer(case.sft.boxes, case.sft.confidences),
            pictures.rft_layer(name(outcome.algorithm), rft.boxes, rft.confidences),
        )
        png = pictures.draw(pool / case.sft.image, layers)
        cells.append(Cell(case, f"figures/{outcome.algorithm}_{outcome.name}_{number}.png", png))
    return cells


def _write_figures(out: Path, drawn: dict[str, Figure], cells: list[Cell]) -> None:
    _make_empty(out / "figures")
    for file, figure in drawn.items():
        for form in ("png", "pdf"):
            (out / "figures" / f"{file}.{form}").write_bytes(figures.save(figure, form))
    for cell in cells:
        (out / cell.file).write_bytes(cell.png)


def _make_empty(folder: Path) -> None:
    """Without the files of an earlier report."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.report", description="Report SFT against RFT over the grid.")
    for argument in ("grades", "policies", "pool", "out"):
        parser.add_argument(f"--{argument}", type=Path, required=True)
    arguments = parser.parse_args()
    report(load_params(), **vars(arguments))
    print((arguments.out / "summary.txt").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
