"""The plots, drawn once for light paper (the PNG files) and once for dark (in the page). All return PNG bytes."""

import io
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.reporting.compare import Comparison
from tasks.reporting.study import History, Study
from tasks.reporting.theme import Theme
from tasks.reporting.words import name, percent

DPI = 200
DODGE = 0.07  # of the distance between two k: keeps the whiskers of two policies apart
MARKERS = {"base": "s", "sft": "o"}  # an algorithm has a diamond


def score_over_k(comparisons: Sequence[Comparison], algorithms: list[str], confidence: float, theme: Theme) -> bytes:
    """Mean reward with its interval, a whisker and a ribbon; the ks are evenly spaced, as shots usually double."""
    figure = _figure((6.6, 3.7), theme)
    axes = figure.add_subplot()
    _style(axes, theme)
    policies = [s.policy for s in comparisons[0].scores]
    for i, policy in enumerate(policies):
        rewards = [c.score(policy).reward for c in comparisons]
        offset = (i - (len(policies) - 1) / 2) * DODGE
        x = [position + offset for position in range(len(comparisons))]
        low, middle, high = ([getattr(r, end) for r in rewards] for end in ("low", "estimate", "high"))
        whiskers = [
            [m - lo for m, lo in zip(middle, low, strict=True)],
            [h - m for m, h in zip(middle, high, strict=True)],
        ]
        colour, marker = theme.policy(policy, algorithms), MARKERS.get(policy, "D")
        axes.errorbar(x, middle, whiskers, color=colour, marker=marker, ms=6, lw=1.8, capsize=3, label=name(policy))
        axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.set_xticks(range(len(comparisons)), [str(c.k) for c in comparisons])
    axes.set_xlim(-0.25, len(comparisons) - 0.75)
    axes.set_xlabel("k, labelled pictures per category")
    axes.set_ylabel(f"mean reward, {percent(confidence)} interval")
    _legend(figure, axes, theme)
    return _png(figure)


def curves(study: Study, theme: Theme) -> bytes:
    """A column a k: reward in training (the algorithms) above, on validation (every policy) below. A line a seed."""
    ks, algorithms = study.ks, study.grid.algorithm
    figure = _figure((max(6.6, 2.5 * len(ks)), 5), theme)
    grid = figure.subplots(2, len(ks), sharey="row", squeeze=False)
    for column, k in enumerate(ks):
        training, validation = grid[0][column], grid[1][column]
        for axes in (training, validation):
            _style(axes, theme)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        training.set_title(f"k = {k}", color=theme.ink, loc="left", fontsize=10, fontweight="bold")
        validation.set_xlabel("step")
        for policy in study.grid.policy:
            histories, colour = study.trainings(policy, k), theme.policy(policy, algorithms)
            if policy in algorithms:
                _draw_curves(training, histories, "steps", colour, policy)
            _draw_curves(validation, histories, "val", colour, policy)
    grid[0][0].set_ylabel("training reward")
    grid[1][0].set_ylabel("validation reward")
    _legend(figure, grid[1][0], theme)
    return _png(figure)


def _draw_curves(axes: Axes, histories: Sequence[History], curve: str, colour: str, policy: str) -> None:
    """Thin lines for the seeds and a thick one for their mean; on validation, a mark where a policy was kept."""
    rewards = [h.rewards(curve) for h in histories]
    for history, reward in zip(histories, rewards, strict=True):
        axes.plot(reward.index, reward, color=colour, lw=0.9, alpha=0.5)
        if curve == "val" and history.best_step in reward:
            axes.plot(history.best_step, reward[history.best_step], MARKERS.get(policy, "D"), color=colour, ms=4.5)
    mean = pd.concat(rewards, axis=1, join="inner").mean(axis=1)
    style = "--" if policy == "sft" else "-"
    axes.plot(mean.index, mean, color=colour, lw=2, linestyle=style, label=name(policy))


def _figure(size: tuple[float, float], theme: Theme) -> Figure:
    return Figure(figsize=size, dpi=DPI, facecolor=theme.paper, layout="constrained")


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(axis="y", color=theme.line, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9, left=False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.muted, fontsize=9.5)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=theme.ink, fontsize=10
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.facecolor": "auto"}):
        figure.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes on every matplotlib
    return buffer.getvalue()
