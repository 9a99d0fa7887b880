"""The plots: as SVG for the page, whose colours follow the page's theme, and as PNG and PDF for papers.

Matplotlib and not an interactive library: the exact numbers stand in the tables, so that hovering would add nothing,
and one drawing serves the screen, the printer and the paper, without a megabyte of script in the page.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.reporting.compare import Comparison
from tasks.reporting.study import History, Study
from tasks.reporting.theme import LIGHT
from tasks.reporting.words import name, percent
from tasks.scoring.statistics import Interval

DPI = 200
DODGE = 0.07  # of the distance between two k: keeps the whiskers of two policies apart
PART = "reward_"  # of a key of a val row: the mean of one grader
MARKERS = {"base": "s", "sft": "o"}  # an algorithm has a diamond


@dataclass(frozen=True)
class Quantity:
    """A curve of training: `value` of a history's `rows`."""

    heading: str
    rows: str
    value: str


QUANTITIES = (
    Quantity("Training reward", "steps", "reward"),
    Quantity("Validation reward", "val", "reward"),
    Quantity("KL to the reference", "steps", "kl"),
    Quantity("Completion length, tokens", "steps", "completion_length"),
)


def score_over_k(comparisons: Sequence[Comparison], algorithms: list[str], confidence: float) -> Figure:
    """Mean reward with its interval, a whisker and a ribbon; the ks are evenly spaced, as shots usually double."""
    rewards = {s.policy: [c.score(s.policy).reward for c in comparisons] for s in comparisons[0].scores}
    figure = _figure((4.6, 3.1))
    axes = _over_k(figure, comparisons, rewards, algorithms)
    axes.set_ylabel(f"mean reward, {percent(confidence)} interval")
    _legend(figure, axes)
    return figure


def difference_over_k(comparisons: Sequence[Comparison], algorithms: list[str], confidence: float) -> Figure:
    """Each algorithm's mean reward minus SFT's, on the same questions and seeds."""
    intervals = {a: [c.difference(a, "sft").interval for c in comparisons] for a in algorithms}
    figure = _figure((4.6, 3.1))
    axes = _over_k(figure, comparisons, intervals, algorithms)
    axes.axhline(0, color=LIGHT.sft, lw=1.4, ls="--", label="SFT")
    axes.set_ylabel(f"reward minus SFT's, {percent(confidence)} interval")
    _legend(figure, axes)
    return figure


def _over_k(figure: Figure, comparisons: Sequence[Comparison], intervals: dict, algorithms: list[str]) -> Axes:
    axes = figure.add_subplot()
    _style(axes)
    for i, (policy, values) in enumerate(intervals.items()):
        x = np.arange(len(values)) + (i - (len(intervals) - 1) / 2) * DODGE
        low, middle, high = (np.array([getattr(v, end) for v in values]) for end in ("low", "estimate", "high"))
        colour, marker = LIGHT.policy(policy, algorithms), MARKERS.get(policy, "D")
        axes.errorbar(
            x, middle, [middle - low, high - middle], color=colour, marker=marker, ms=5, lw=1.8, elinewidth=1.2,
            capsize=2.5, label=name(policy),
        )  # fmt: skip
        axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    axes.set_xticks(range(len(comparisons)), [str(c.k) for c in comparisons])
    axes.set_xlim(-0.3, len(comparisons) - 0.7)
    axes.set_xlabel("k")
    return axes


def radar(scores: Mapping[str, Mapping[str, float]], algorithms: list[str]) -> Figure:
    """{axis: {policy: its score in 0..1}}, an axis each, all on one scale. The middle is not 0 but a tenth below the
    lowest score, as the rings say: on whole axes the policies would be one line.
    """
    figure = _figure((5.4, 4.6))
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    angles = np.linspace(0, 2 * np.pi, len(scores), endpoint=False)
    table = pd.DataFrame(scores).T  # a row an axis, a column a policy
    for policy, values in table.items():
        colour, marker = LIGHT.policy(policy, algorithms), MARKERS.get(policy, "D")
        closed = [*values, values.iloc[0]]
        axes.plot(
            [*angles, angles[0]], closed, color=colour, lw=1.8, marker=marker, ms=4.5, label=name(policy),
            ls="--" if policy == "base" else "-", clip_on=False,
        )  # fmt: skip
        if policy != "base":
            axes.fill(angles, values, color=colour, alpha=0.07, lw=0)
    _rings(axes, middle(scores), float(table.max().max()))
    axes.set_xticks(angles, scores)
    for label, angle in zip(axes.get_xticklabels(), angles, strict=True):  # outwards from the ring, never across it
        label.set_horizontalalignment("center" if abs(np.sin(angle)) < 0.1 else "left" if angle < np.pi else "right")
    _legend(figure, axes)
    return figure


def middle(scores: Mapping[str, Mapping[str, float]]) -> float:
    """The score at the middle of their radar."""
    lowest = min(score for policies in scores.values() for score in policies.values())
    return max(0.0, np.floor(10 * lowest - 0.5) / 10)


def _rings(axes: Axes, low: float, highest: float) -> None:
    """From `low` to the tenth above the highest score; their numbers between the first two axes."""
    high = min(1, np.ceil(10 * highest) / 10)
    rings = np.arange(low, high + 0.01, 0.1 if high - low <= 0.55 else 0.2)[1:]
    axes.set_ylim(low, high)
    axes.set_yticks(rings, [f"{ring:.1f}" for ring in rings])
    axes.set_rlabel_position(180 / len(axes.lines[0].get_xdata()[1:]))
    axes.grid(color=LIGHT.line, lw=0.8)
    axes.spines["polar"].set_color(LIGHT.line)
    axes.tick_params(colors=LIGHT.muted, labelsize=8)
    axes.tick_params(axis="x", colors=LIGHT.ink, labelsize=9.5, pad=6)


def differences(rows: Sequence[tuple[str, str, Interval]], algorithms: list[str]) -> Figure:
    """A forest plot: (what, algorithm, its reward minus SFT's), a line each, the first on top."""
    figure = _figure((5.4, 1.1 + 0.34 * len(rows)))
    axes = figure.add_subplot()
    _style(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LIGHT.line, lw=0.8)
    labelled = set()
    for y, (_, algorithm, interval) in enumerate(rows):
        sides = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
        label = None if algorithm in labelled else name(algorithm)
        axes.errorbar(
            [interval.estimate], [y], xerr=sides, fmt="D", color=LIGHT.policy(algorithm, algorithms), ms=5.5, lw=1.8,
            capsize=3, label=label,
        )  # fmt: skip
        labelled.add(algorithm)
    axes.axvline(0, color=LIGHT.sft, lw=1.4, ls="--", label="SFT")
    axes.set_yticks(range(len(rows)), [what for what, _, _ in rows])
    axes.tick_params(axis="y", colors=LIGHT.ink)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("reward minus SFT's")
    _legend(figure, axes)
    return figure


def recorded(study: Study) -> list[Quantity]:
    """Those that at least one history of the grid tells; of an imported job, the validation of each grader too."""
    trained = [h for h in study.histories if h.policy != "warmup"]
    told = dict.fromkeys(key for h in trained for row in h.val for key in row if key.startswith(PART))
    parts = [Quantity(f"Validation: {key.removeprefix(PART).removeprefix('graders/')}", "val", key) for key in told]
    return [
        q
        for q in (*QUANTITIES[:2], *parts, *QUANTITIES[2:])
        if any(not h.curve(q.rows, q.value).empty for h in trained)
    ]


def curves(study: Study, quantities: Sequence[Quantity]) -> Figure:
    """For papers, all in one: a row a quantity, a column a k."""
    figure = _figure((max(5.6, 2.2 * len(study.ks)), 2.1 * len(quantities) + 0.4))
    grid = figure.subplots(len(quantities), len(study.ks), sharey="row", squeeze=False)
    for row, quantity in zip(grid, quantities, strict=True):
        for axes, k in zip(row, study.ks, strict=True):
            _draw(axes, study, k, quantity)
        row[0].set_ylabel(quantity.heading, parse_math=False)  # a grader is named by its user
    for axes, k in zip(grid[0], study.ks, strict=True):
        axes.set_title(f"k = {k}", color=LIGHT.ink, loc="left", fontsize=10, fontweight="bold")
    _legend(figure, grid[-1][0])
    return figure


def panel(study: Study, k: int, quantity: Quantity) -> Figure:
    """For the page: one quantity at one k, on the scale that the quantity has at every k."""
    figure = _figure((2.2, 1.55))
    axes = figure.add_subplot()
    _draw(axes, study, k, quantity)
    trained = [h.curve(quantity.rows, quantity.value) for h in study.histories if h.policy != "warmup"]
    values = pd.concat([curve for curve in trained if not curve.empty])
    room = 0.05 * (values.max() - values.min() or 1)
    axes.set_ylim(values.min() - room, values.max() + room)
    return figure


def _draw(axes: Axes, study: Study, k: int, quantity: Quantity) -> None:
    """Thin lines for the seeds and a thick one for their mean; on validation, a mark where a policy was kept."""
    _style(axes)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("step")
    for policy in study.grid.policy:
        drawn = [(h, curve) for h in study.trainings(policy, k) if not (curve := _curve(h, quantity)).empty]
        if not drawn:
            continue
        colour, marker = LIGHT.policy(policy, study.grid.algorithm), MARKERS.get(policy, "D")
        for history, curve in drawn:
            axes.plot(curve.index, curve, color=colour, lw=0.8, alpha=0.45)
            if quantity.rows == "val" and history.best_step in curve:
                axes.plot(history.best_step, curve[history.best_step], marker, color=colour, ms=4)
        mean = pd.concat([curve for _, curve in drawn], axis=1, join="inner").mean(axis=1)
        axes.plot(mean.index, mean, color=colour, lw=1.8, ls="--" if policy == "sft" else "-", label=name(policy))


def _curve(history: History, quantity: Quantity) -> pd.Series:
    return history.curve(quantity.rows, quantity.value)


def _figure(size: tuple[float, float]) -> Figure:
    return Figure(figsize=size, dpi=DPI, facecolor=LIGHT.paper, layout="constrained")


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(axis="y", color=LIGHT.line, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.muted)
    axes.tick_params(colors=LIGHT.muted, labelsize=9, left=False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=LIGHT.muted, fontsize=9)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=LIGHT.ink, fontsize=9.5
    )


def save(figure: Figure, form: str) -> bytes:
    """'png', 'pdf' or 'svg'; the same bytes for the same figure."""
    buffer = io.BytesIO()
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    if figure.get_layout_engine():  # it would lay out and draw once more for every form
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kshot", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=form, metadata=undated.get(form, {"Date": None}))
    return buffer.getvalue()


def inline(figure: Figure, alt: str, algorithms: list[str]) -> str:
    """As an <svg> element of the page, with its variables for colours and its font; `alt` must be escaped already."""
    figure.patch.set_visible(False)
    svg = save(figure, "svg").decode()
    figure.patch.set_visible(True)
    svg = svg[svg.index("<svg") :]
    for metadata in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        svg = re.sub(metadata, "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nobody refers to them, and they are the same in every figure
    svg = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for variable, colour in LIGHT.variables(algorithms).items():
        svg = svg.replace(colour, f"var(--{variable})")
    box, body = re.search(r'viewBox="[^"]*"', svg).group(), svg[svg.index(">") + 1 :]
    return f'<svg {box} role="img" aria-label="{alt}">{body.replace("xlink:href", "href")}'
