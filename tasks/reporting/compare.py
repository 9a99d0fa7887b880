"""Policies against each other at every k: scores, paired differences with intervals, the verdict in words.

All statistics are those of `tasks.scoring.statistics`. The verdict is on the mean reward, which is what RFT is trained
on; the task's own metrics (AP, accuracy, IoU, top-1) stand beside it with their intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from tasks.params import Report
from tasks.reporting.study import Graded, Study
from tasks.scoring.coco import match
from tasks.scoring.resampling import Resampled, picture_means, resample_ap, resample_means
from tasks.scoring.statistics import (
    MIN_SEEDS,
    Interval,
    Verdict,
    holm,
    interval,
    minimum_detectable,
    p_value,
    superiority,
    variance,
    verdict,
)


@dataclass(frozen=True)
class Score:
    """A policy at one k. `metrics` are those of the study's tasks, means over the seeds, in 0..1; NaN for one that the
    policy has not, as the base model is not reranked.

    `beside` holds intervals: of ap, ap50 and ap75 of detection, of the own metrics of other tasks; of jobs nothing.
    """

    policy: str
    num_seeds: int
    reward: Interval
    metrics: dict[str, float]
    beside: dict[str, Interval]


FOUND = ("better", "worse")


@dataclass(frozen=True)
class Difference:
    """Mean reward of `policy` minus that of `other`, paired by question and seed.

    `p` is of this comparison alone, as `interval` is; `p_holm`, which the verdict follows, is adjusted for `num_tests`
    comparisons: with SFT at every k and of every algorithm, with the base at every k.
    """

    policy: str
    other: str
    interval: Interval
    verdict: Verdict
    p: float
    p_holm: float
    num_tests: int
    by_seed: dict[int, float]  # the mean difference of each training seed
    kept: int  # runs of `policy` that kept SFT's own weights, as they found none on val that are better
    seed_share: float  # of the variance: what more seeds would take away; the rest, more pictures
    detectable: float  # the true difference, were it the only one, that such a study finds at 80%; 0 is no telling
    superiority: float  # the probability that `policy` has the higher reward on a random question; ties count half
    beside: dict[str, Interval]  # differences in what a score has beside its reward

    @property
    def why(self) -> str:
        """How many runs are SFT's own; what lacks. Nothing where there is nothing to say."""
        runs = "this run" if len(self.by_seed) == 1 else f"{self.kept} of {len(self.by_seed)} runs"
        kept = f"{runs} kept SFT's own weights" if self.kept else ""
        return "; ".join(filter(None, [kept, self._lacking]))

    @property
    def _lacking(self) -> str:
        """What lacks where the verdict is 'too little data', or where it does not follow the interval, which is of this
        comparison alone; and what these runs show.
        """
        more = "seeds" if self.seed_share > 0.5 else "test questions"
        if self._shown and self.p < self.p_holm and len(self.by_seed) >= MIN_SEEDS and self.verdict not in FOUND:
            alone = {1: "better", -1: "worse"}[self._shown]
            corrected = f"Holm's correction over {self.num_tests} comparisons p is {self.p_holm:.3f}, not {self.p:.3f}"
            return f"alone it would be {alone}, but by {corrected}: take more {more}"
        if self.verdict != "too little data":
            return ""
        if len(self.by_seed) >= MIN_SEEDS and not self.detectable:
            return "every answer earns what SFT's does, so that nothing tells what difference would be found"
        if len(self.by_seed) >= MIN_SEEDS:
            return f"a true difference below {self.detectable:.3f} can go unnoticed: take more {more}"
        one = len(self.by_seed) == 1
        runs = {1: "this run is better", -1: "this run is worse"}[self._shown] if one and self._shown else ""
        seeds = "1 seed" if one else f"{len(self.by_seed)} seeds"
        return f"{runs}{runs and ' on such questions, but '}{seeds} cannot speak for other runs: take {MIN_SEEDS}"

    @property
    def _shown(self) -> int:
        """The sign of the interval, 0 where it holds 0."""
        return (self.interval.low > 0) - (self.interval.high < 0)


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


@dataclass(frozen=True)
class _Runs:
    """A policy at one k, graded and resampled."""

    graded: tuple[Graded, ...]
    kept: int
    reward: Resampled
    beside: dict[str, Resampled]


def compare(study: Study, settings: Report) -> tuple[Comparison, ...]:
    """One comparison for each k, ascending. Holm's correction is over all comparisons with SFT, of every algorithm at
    every k: of studies without any difference no more than 5% call one better or worse, however many they try. Those
    of a policy with the base are corrected over the k's.
    """
    families = [[(a, "sft") for a in study.grid.algorithm], *([(p, "base")] for p in study.grid.policy)]
    base = _runs(study, "base", study.ks[0], settings)
    runs = {
        k: {"base": base} | {policy: _runs(study, policy, k, settings) for policy in study.grid.policy}
        for k in study.ks
    }
    differences: dict[int, list[Difference]] = {k: [] for k in study.ks}
    for family in families:
        tests = [(pair, k) for pair in family for k in study.ks]
        raw = [p_value(runs[k][a].reward - runs[k][b].reward) for (a, b), k in tests]
        for (pair, k), *p_values in zip(tests, raw, holm(raw), strict=True):
            differences[k].append(_difference(pair, runs[k], p_values, len(tests), settings))
    return tuple(
        Comparison(k, tuple(_score(study, p, runs[k][p], settings.confidence) for p in runs[k]), tuple(differences[k]))
        for k in study.ks
    )


def _runs(study: Study, policy: str, k: int, settings: Report) -> _Runs:
    graded, resamples = study.grades(policy, k), settings.resamples
    from_sft = policy in study.grid.algorithm and study.grid.init == "sft"
    kept = sum(from_sft and run.best_step == 0 for run in study.trainings(policy, k))
    reward = {run.seed: picture_means(vars(a) for a in run.answers) for run in graded}
    detection = {run.seed: [vars(a) for a in run.answers if a.task == "detection"] for run in graded}
    matches = {seed: match(rows) for seed, rows in detection.items() if rows}
    beside = resample_ap(matches, resamples=resamples) if matches else {}
    for metric in dict.fromkeys(metric for answer in graded[0].answers for metric in answer.own):
        own = {
            run.seed: picture_means(
                ({"record_id": a.record_id, **a.own} for a in run.answers if metric in a.own), metric
            )
            for run in graded
        }
        beside[metric] = resample_means(own, resamples=resamples)
    return _Runs(graded, kept, resample_means(reward, resamples=resamples), beside)


def _score(study: Study, policy: str, runs: _Runs, confidence: float) -> Score:
    reward = interval(runs.reward, confidence)
    return Score(
        policy=policy,
        num_seeds=len(runs.graded),
        reward=reward if "job" in study.tasks else reward.clipped,  # the graders of a job have a scale of their own
        metrics={m: fmean(run.metrics.get(m, math.nan) for run in runs.graded) for m in study.headings},
        beside={name: interval(score, confidence).clipped for name, score in runs.beside.items()},
    )


def _difference(
    pair: tuple[str, str], runs: Mapping[str, _Runs], p_values: Sequence[float], num_tests: int, settings: Report
) -> Difference:
    a, b = (runs[policy] for policy in pair)
    p, p_holm = p_values
    reward, confidence = a.reward - b.reward, settings.confidence
    detectable = minimum_detectable(reward, confidence, num_tests)
    return Difference(
        *pair,
        interval=interval(reward, confidence),
        verdict=verdict(reward, p_holm, detectable, relevant=settings.relevant_difference, confidence=confidence),
        p=p,
        p_holm=p_holm,
        num_tests=num_tests,
        by_seed=dict(zip(reward.seeds, map(float, reward.estimates), strict=True)),
        kept=a.kept,
        seed_share=variance(reward).seed_share,
        detectable=detectable,
        superiority=superiority(*([[answer.reward for answer in run.answers] for run in x.graded] for x in (a, b))),
        beside={name: interval(a.beside[name] - b.beside[name], confidence) for name in a.beside},
    )


def as_metrics(study: Study, comparisons: Sequence[Comparison]) -> dict:
    """For `dvc metrics`, whose every number is a column: {'k=4': {'base': 0.6, 'sft': 0.7, 'grpo': 0.74, 'ap': {'base':
    0.4, ...}, 'grpo-sft': {'estimate': 0.04, 'low': 0.01, 'high': 0.07, 'verdict': 'better'}}}.
    """
    return {f"k={c.k}": _at(study, c) for c in comparisons}


def _at(study: Study, comparison: Comparison) -> dict:
    own = {metric: {s.policy: s.beside[metric].estimate for s in comparison.scores} for metric in study.own}
    against = {d.policy: d for d in comparison.differences if d.other == "sft"}
    return (
        {s.policy: s.reward.estimate for s in comparison.scores}
        | own
        | {f"{policy}-sft": asdict(d.interval) | {"verdict": d.verdict} for policy, d in against.items()}
    )


def as_statistics(comparisons: Sequence[Comparison]) -> dict:
    """All that was reckoned: {'k=4': {'scores': {'sft': {'reward': {'estimate': 0.7, 'low': ..., 'high': ...}, ...}},
    'differences': {'grpo-sft': {'interval': ..., 'p': ..., 'by_seed': ..., ...}, ...}}}.
    """
    return {
        f"k={c.k}": {
            "scores": {s.policy: asdict(s) | {"metrics": _there(s.metrics)} for s in c.scores},
            "differences": {f"{d.policy}-{d.other}": asdict(d) for d in c.differences},
        }
        for c in comparisons
    }


def _there(metrics: dict[str, float]) -> dict[str, float]:
    """JSON has no NaN."""
    return {metric: value for metric, value in metrics.items() if not math.isnan(value)}
