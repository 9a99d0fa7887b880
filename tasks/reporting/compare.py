"""Policies against each other at every k: scores, paired differences with intervals, the verdict in words.

All statistics are those of `tasks.scoring.statistics`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from tasks.params import Report
from tasks.reporting.study import Graded, Study
from tasks.scoring.statistics import (
    Interval,
    PolicyScores,
    Verdict,
    mean_interval,
    paired_difference,
    picture_means,
    verdict,
)


@dataclass(frozen=True)
class Score:
    """A policy at one k. `metrics` are those of the study's tasks, means over the seeds, in 0..1."""

    policy: str
    num_seeds: int
    reward: Interval
    metrics: dict[str, float]


@dataclass(frozen=True)
class Difference:
    """Mean reward of `policy` minus that of `other`, paired by question and seed."""

    policy: str
    other: str
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """`scores` begin with base and sft; `differences` go each algorithm - sft first, then each policy - base."""

    k: int
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]

    def score(self, policy: str) -> Score:
        return next(s for s in self.scores if s.policy == policy)

    def difference(self, policy: str, other: str) -> Difference:
        return next(d for d in self.differences if (d.policy, d.other) == (policy, other))


def compare(study: Study, settings: Report) -> tuple[Comparison, ...]:
    """One comparison for each k, ascending."""
    options = {"resamples": settings.resamples, "confidence": settings.confidence}
    pairs = [(a, "sft") for a in study.grid.algorithm] + [(p, "base") for p in study.grid.policy]
    return tuple(_compare_at(study, k, pairs, options) for k in study.ks)


def _compare_at(study: Study, k: int, pairs: list[tuple[str, str]], options: dict) -> Comparison:
    grades = {policy: study.grades(policy, k) for policy in ("base", *study.grid.policy)}
    values = {policy: _policy_scores(runs) for policy, runs in grades.items()}
    scores = tuple(
        Score(
            policy=policy,
            num_seeds=len(runs),
            reward=mean_interval(values[policy], **options),
            metrics={m: fmean(run.metrics[m] for run in runs) for m in study.headings},
        )
        for policy, runs in grades.items()
    )
    intervals = {(a, b): paired_difference(values[a], values[b], **options) for a, b in pairs}
    return Comparison(k, scores, tuple(Difference(a, b, i, verdict(i)) for (a, b), i in intervals.items()))


def _policy_scores(runs: Sequence[Graded]) -> PolicyScores:
    return {run.seed: picture_means(vars(a) for a in run.answers) for run in runs}


def as_metrics(comparisons: Sequence[Comparison]) -> dict:
    """For `dvc metrics`: {'k=4': {'base': 0.6, 'sft': 0.7, 'grpo': 0.74, 'grpo-sft': {'estimate': 0.04, ...}}}."""
    return {
        f"k={c.k}": {s.policy: s.reward.estimate for s in c.scores}
        | {f"{d.policy}-{d.other}": {**asdict(d.interval), "verdict": d.verdict} for d in c.differences}
        for c in comparisons
    }
