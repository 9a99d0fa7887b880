"""Several studies on one page: what each found, beside each other, and a radar over them (as Visual-RFT, arXiv
2503.01785, figure 1, shows its tasks).

    python -m tasks.overview docs/detection docs/classification docs/grounding --out docs/overview

Each argument is a folder that `tasks.report` wrote. overview.html (self-contained), overview.md with figures/*.png (and
*.pdf for papers). Every verdict is its study's own: Holm's correction is over the k's and algorithms of a study, as
each was planned by itself, and not over the studies that somebody puts on a page.
"""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from markupsafe import escape
from matplotlib.figure import Figure

from tasks.reporting import figures, page
from tasks.reporting.words import SAID, name
from tasks.scoring.metrics import METRICS, OPTIONAL
from tasks.scoring.statistics import Interval

NEEDED = {"k", "policy", "num_seeds", "reward", "reward_low", "reward_high"}
NEEDED |= {"against_sft", "against_sft_low", "against_sft_high", "verdict", "p_holm"}
HEADING = re.compile(r"# Study (.+): does ")  # report.md's first line; its signs may be escaped


class OverviewError(ValueError):
    """A folder is not that of a report; the message names the file and what to do."""


@dataclass(frozen=True)
class Row:
    """A policy of a study at one k. `difference` is to SFT, of an algorithm only, as are `verdict` and `p_holm`."""

    k: int
    policy: str
    num_seeds: int
    reward: Interval
    metrics: dict[str, float]  # by heading, in 0..1
    difference: Interval | None
    verdict: str | None
    p_holm: float | None


@dataclass(frozen=True)
class Finished:
    """A study by what its report says. `matched` is params.yaml's grid.matched, None in reports from before it;
    `unfair` says in what SFT and RFT differed beside the method.
    """

    name: str
    folder: Path
    tasks: tuple[str, ...]
    matched: str | None
    unfair: str
    rows: tuple[Row, ...]

    @property
    def ks(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(row.k for row in self.rows))

    @property
    def compared(self) -> tuple[Row, ...]:
        """Algorithms, which stand against SFT."""
        return tuple(row for row in self.rows if row.difference is not None)

    def at(self, k: int) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.k == k)


def read_finished(folder: Path) -> Finished:
    """The study whose report lies in `folder`; `OverviewError` where there is none."""
    path = folder / "results.csv"
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise OverviewError(f"{path} is missing: give folders that `python -m tasks.report` wrote") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise OverviewError(f"{path} is no table ({error}): make the report again") from None
    if absent := NEEDED - set(table.columns):
        raise OverviewError(f"{path} has no {', '.join(sorted(absent))}: make the report again")
    tasks = _tasks(set(table.columns))
    headings = {metric: heading for task in tasks for metric, heading in METRICS[task].items() if metric in table}
    rows = tuple(_row(values, headings) for values in table.to_dict("records"))
    matched = table["matched"].iloc[0] if "matched" in table else None
    unfair = " ".join(table["unfair"].dropna().unique()) if "unfair" in table else ""
    return Finished(_name(folder), folder, tasks, matched, unfair, rows)


def _tasks(columns: set[str]) -> tuple[str, ...]:
    """Those all of whose metrics are there, but for one whose metrics are some of another's (maths has the accuracy
    that classification has too).
    """
    found = {task: set(metrics) - OPTIONAL for task, metrics in METRICS.items() if set(metrics) - OPTIONAL <= columns}
    largest = {t: own for t, own in found.items() if not any(own < others for others in found.values())}
    return tuple({frozenset(own): task for task, own in reversed(largest.items())}.values())[::-1]


def _name(folder: Path) -> str:
    markdown = folder / "report.md"
    first = markdown.read_text(encoding="utf-8").partition("\n")[0] if markdown.is_file() else ""
    found = HEADING.match(first)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else folder.resolve().name


def _row(values: dict, headings: dict[str, str]) -> Row:
    def interval(of: str) -> Interval:
        return Interval(*(float(values[of + end]) for end in ("", "_low", "_high")))

    compared = not pd.isna(values["against_sft"])
    return Row(
        k=int(values["k"]),
        policy=values["policy"],
        num_seeds=int(values["num_seeds"]),
        reward=interval("reward"),
        metrics={heading: values[metric] for metric, heading in headings.items()},
        difference=interval("against_sft") if compared else None,
        verdict=values["verdict"] if compared else None,
        p_holm=values["p_holm"] if compared else None,
    )


def overview(folders: Sequence[Path], out: Path) -> None:
    """Write the page, the Markdown and the figures of the studies reported in `folders` under `out`."""
    studies = _named_apart([read_finished(folder) for folder in folders])
    algorithms = list(dict.fromkeys(row.policy for study in studies for row in study.compared))
    drawn = _figures(studies, algorithms)
    plots = {
        file: page.Plot(f"figures/{file}.png", alt, figures.inline(figure, escape(alt), algorithms))
        for file, (alt, figure) in drawn.items()
    }
    shown = {
        "studies": studies,
        "algorithms": algorithms,
        "headlines": [headline(studies, algorithm) for algorithm in algorithms],
        "plots": plots,
        "links": {study.name: _link(study, out) for study in studies},
        "script": None,
    }
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for file in ("overview.html", "overview.md"):
        (out / file).write_text(page.render(f"{file}.j2", shown), encoding="utf-8")
    for file, (_, figure) in drawn.items():
        for form in ("png", "pdf"):
            (out / "figures" / f"{file}.{form}").write_bytes(figures.save(figure, form))


def _named_apart(studies: list[Finished]) -> list[Finished]:
    """Studies of one name by what they are matched by too, or where that is alike by their number on the page."""
    named = []
    for study in studies:
        alike = [other for other in studies if other.name == study.name]
        is_told = len({other.matched for other in alike}) == len(alike)
        mark = f"matched by {study.matched}" if is_told else alike.index(study) + 1
        named.append(replace(study, name=f"{study.name} ({mark})") if len(alike) > 1 else study)
    return named


def headline(studies: Sequence[Finished], algorithm: str) -> str:
    """In how many comparisons (a study and k each) the algorithm is better than SFT, worse, and so on."""
    verdicts = [row.verdict for study in studies for row in study.compared if row.policy == algorithm]
    counts = ", ".join(f"{said} in {verdicts.count(word)}" for word, said in SAID.items() if word in verdicts)
    compared = "comparison" if len(verdicts) == 1 else "comparisons"
    return f"Of {len(verdicts)} {compared}, {name(algorithm)} is {counts}."


def _figures(studies: Sequence[Finished], algorithms: list[str]) -> dict[str, tuple[str, Figure]]:
    """{name: (what it shows, the figure)}. A radar takes three axes."""
    rows = [(f"{study.name}, k = {row.k}", row.policy, row.difference) for study in studies for row in study.compared]
    alt = f"Reward of {', '.join(map(name, algorithms))} minus that of SFT by study and k, with the report's interval"
    found = {"differences": (alt, figures.differences(rows, algorithms))}
    if len(studies) >= 3:
        scores = {
            f"{study.name}\nk = {study.ks[-1]}": {row.policy: row.reward.estimate for row in study.at(study.ks[-1])}
            for study in studies
        }
        policies = ", ".join(map(name, ["base", "sft", *algorithms]))
        alt = f"Mean reward of {policies} by study, each at its largest k; the middle is {figures.middle(scores):.1f}"
        found["radar"] = (alt, figures.radar(scores, algorithms))
    return found


def _link(study: Finished, out: Path) -> str | None:
    """To the study's own page, from `out`."""
    own = study.folder / "report.html"
    return Path(os.path.relpath(own, out)).as_posix() if own.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.overview", description="Show several reports on one page.")
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT_DIR", help="a folder of `tasks.report`")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        overview(arguments.reports, arguments.out)
    except OverviewError as error:
        parser.error(str(error))
    print(arguments.out / "overview.html")


if __name__ == "__main__":
    main()
