"""How sure is a few-shot comparison? Intervals, p-values and a verdict over training seeds and test pictures.

Seeds and pictures are crossed. The variance of a mean over both is the sum of

- the variance of the S scores, one a seed, over S. It is a seed's own: its slice, its training and its luck with each
  picture. Known with S - 1 degrees of freedom; and
- what the choice of pictures does to all seeds alike: the covariance of two seeds' scores over a bootstrap of the
  pictures (`tasks.scoring.resampling`). Known with P - 1.

For a mean the sum is unbiased; adding the two whole bootstrap variances instead would count the luck with each picture
twice (Owen 2007, 'The pigeonhole bootstrap'). Seeds are not bootstrapped: three have ten distinct resamples.

The sum of two variances has no exact t distribution (the Behrens-Fisher problem). A p-value here is the mean of those
of the t distributions with S - 1 and with P - 1, weighted by the two shares of the variance; an interval holds what has
a p-value above 1 - confidence, so the two cannot disagree. (Cochran and Cox 1950 average the critical values.) With
three seeds and more such a 95% interval holds the truth in 94.8% to 96.4% of studies whatever the shares are, where
Satterthwaite's degrees of freedom give as little as 92%, and percentiles of a bootstrap of seeds 74%. With two seeds it
is 92.2% to 96.4%. `python -m benchmarks.coverage` simulates studies, down to the verdict.

With one seed, or with the base model alone, nothing is known about the spread over seeds: everything here then covers
the choice of test pictures only, and says nothing about another training run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from tasks.scoring.resampling import Resampled

MIN_SEEDS = 3
POWER = 0.8
SHARES = np.linspace(0, 1, 9) ** 2  # of the seeds in the variance; close together where the multiple changes most

Verdict = Literal["better", "worse", "no difference shown", "too little data"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def clipped(self) -> "Interval":
        """Of a score that cannot leave 0..1. No end passes the estimate, which may be 1 but for a rounding error."""
        return Interval(self.estimate, min(max(self.low, 0.0), self.estimate), max(min(self.high, 1.0), self.estimate))


@dataclass(frozen=True)
class Variance:
    """Of a score over seeds and pictures: its two parts and their degrees of freedom (0 for the seeds of one)."""

    seeds: float
    pictures: float
    freedom: tuple[int, int]

    @property
    def total(self) -> float:
        return self.seeds + self.pictures

    @property
    def seed_share(self) -> float:
        """How much of the doubt more seeds would remove, 0..1; the rest is what more pictures would."""
        return self.seeds / self.total if self.total else 0.0


def variance(score: Resampled) -> Variance:
    num_seeds, freedom = len(score.seeds), (len(score.seeds) - 1, len(score.questions) - 1)
    covariance = np.atleast_2d(np.cov(score.replicates.T))
    if num_seeds == 1:
        return Variance(0.0, float(covariance[0, 0]), freedom)
    shared = covariance[~np.eye(num_seeds, dtype=bool)].mean()
    return Variance(float(score.estimates.var(ddof=1)) / num_seeds, max(float(shared), 0.0), freedom)


def interval(score: Resampled, confidence: float = 0.95) -> Interval:
    spread = variance(score)
    half = _critical(spread.seed_share, spread.freedom, confidence) * spread.total**0.5
    return Interval(score.estimate, score.estimate - half, score.estimate + half)


def p_value(difference: Resampled) -> float:
    """Two-sided, of no difference: below 1 - confidence just where the interval excludes 0."""
    spread = variance(difference)
    if spread.total == 0:
        return 1.0 if difference.estimate == 0 else 0.0
    return _tails(abs(difference.estimate) / spread.total**0.5, spread.seed_share, spread.freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for looking at several, in the same order: the chance of any false finding stays below the level (Holm
    1979).
    """
    order = np.argsort(p_values)
    steps = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def minimum_detectable(difference: Resampled, confidence: float = 0.95, num_tests: int = 1) -> float:
    """The true difference that another study of as many seeds and pictures would find with POWER where it is the only
    one of `num_tests`: Holm's correction then asks for a p-value below (1 - confidence) / num_tests.

    A multiple of the standard error, by the share that the seeds have of the doubt: at 95% and one test 2.85 where it
    is pictures alone, 8.8 where it is three seeds; 3.5 and 20 at one of five tests. The usual t + t takes the variance
    for known, but three seeds know little of it: a study repeated at the difference so printed finds it 60% of times.
    """
    spread = variance(difference)
    level = (1 - confidence) / num_tests
    multiple = np.interp(spread.seed_share, SHARES, _multiples(tuple(max(f, 1) for f in spread.freedom), level))
    return float(multiple) * spread.total**0.5


@lru_cache
def _multiples(freedom: tuple[int, int], level: float) -> np.ndarray:
    """At each of SHARES the c at which P(Z + c U > t V) is POWER: Z is normal, U and V are what two studies take for
    their standard error, t the critical ratio of the second. c goes by the share that the first study sees, t by that
    of the second. So a c serves several true shares, and is found by turns: simulate, then scale each c towards POWER.
    For three seeds and more the power is then within 0.04 of it.
    """
    rng, num = np.random.default_rng(0), 20_000
    seeds, pictures = (rng.chisquare(f, (2, 1, num)) / f for f in freedom)
    parts = SHARES[:, None] * seeds, (1 - SHARES[:, None]) * pictures  # (study, share, simulation)
    total = parts[0] + parts[1]
    (ours, theirs), (seen, others) = np.sqrt(total), parts[0] / total
    critical = np.interp(others, SHARES, [_critical(share, freedom, 1 - level) for share in SHARES])
    short = critical * theirs - rng.standard_normal(num)
    alone = np.quantile((short / ours)[[0, -1]], POWER, axis=1)  # pictures alone, seeds alone
    multiples = alone[0] + SHARES * (alone[1] - alone[0])
    for _ in range(6):
        multiples *= np.quantile(short / (np.interp(seen, SHARES, multiples) * ours), POWER, axis=1) ** 0.5
    return multiples


def superiority(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """The probability that `a` has the higher reward on a random question and seed; ties count half.

    Rewards (seeds, questions) in the same order. One row (the base model) stands against every row of the other.
    """
    rewards_a, rewards_b = np.asarray(a), np.asarray(b)
    return float(((rewards_a > rewards_b) + (rewards_a == rewards_b) / 2).mean())


def verdict(
    difference: Resampled, adjusted_p: float, detectable: float, *, relevant: float, confidence: float = 0.95
) -> Verdict:
    """'better' or 'worse' where `adjusted_p` (Holm's) is below 1 - confidence. Else 'no difference shown' where such a
    study finds a `relevant` difference with POWER (`detectable` is not above it), and 'too little data' where it does
    not: then to have found none means nothing. So it is where nothing varies (`detectable` is 0), as where every run
    kept the weights that it is compared with: how runs that learn would differ is not known.

    Below MIN_SEEDS seeds it is 'too little data' in any case. The verdict is on a way of training, and one run, however
    many pictures it answers, shows nothing of the next; with two, false findings can reach 8% instead of 5%.
    """
    if len(difference.seeds) < MIN_SEEDS:
        return "too little data"
    if adjusted_p < 1 - confidence:
        return "better" if difference.estimate > 0 else "worse"
    return "no difference shown" if 0 < detectable <= relevant else "too little data"


def _tails(ratio: float, seed_share: float, freedom: tuple[int, int]) -> float:
    """The two-sided p-value of estimate / standard error."""
    by_seeds, by_pictures = (2 * stdtr(max(f, 1), -ratio) for f in freedom)
    return float(seed_share * by_seeds + (1 - seed_share) * by_pictures)


def _critical(seed_share: float, freedom: tuple[int, int], confidence: float) -> float:
    """The ratio that has a p-value of 1 - confidence; between those of the two t distributions."""
    low, high = sorted(float(stdtrit(max(f, 1), (1 + confidence) / 2)) for f in freedom)
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        low, high = (middle, high) if _tails(middle, seed_share, freedom) > 1 - confidence else (low, middle)
    return high
