"""Intervals: estimates by hand, widths against theory, coverage by simulation, and degenerate input."""

import math

import numpy as np
import pytest

from tasks.scoring.statistics import Interval, PictureMean, mean_interval, paired_difference, picture_means, verdict


def scores(values, weights=None, seeds=None):
    """PolicyScores from an array (seeds, pictures)."""
    values = np.atleast_2d(values)
    seeds = range(len(values)) if seeds is None else seeds
    weights = [1] * values.shape[1] if weights is None else weights
    return {
        seed: {f"p{i:04}": PictureMean(float(x), w) for i, (x, w) in enumerate(zip(line, weights, strict=True))}
        for seed, line in zip(seeds, values, strict=True)
    }


def width(interval):
    return interval.high - interval.low


def test_picture_means():
    rows = [("p", 1.0), ("q", 0.5), ("p", 0.0)]
    assert picture_means({"record_id": p, "reward": r} for p, r in rows) == {
        "p": PictureMean(0.5, 2),
        "q": PictureMean(0.5, 1),
    }


def test_estimates_by_hand():
    a = scores([[0.2, 0.8], [0.4, 1.0]], weights=[3, 1])
    b = scores([[0.1, 0.5], [0.1, 0.9]], weights=[3, 1])
    base = scores([[0.0, 0.4]], weights=[3, 1], seeds=[None])
    # ((3 x 0.2 + 0.8) / 4 + (3 x 0.4 + 1.0) / 4) / 2: every question counts alike, every seed counts alike.
    assert mean_interval(a).estimate == pytest.approx((1.4 + 2.2) / 8)
    assert mean_interval(base).estimate == pytest.approx(0.1)
    assert paired_difference(a, b).estimate == pytest.approx((1.4 + 2.2) / 8 - (0.8 + 1.2) / 8)
    assert paired_difference(a, base).estimate == pytest.approx((1.4 + 2.2) / 8 - 0.1)


def test_one_seed_gives_the_classical_interval_of_a_mean():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    interval = mean_interval(scores(values))
    assert width(interval) == pytest.approx(2 * 1.966 * values.std(ddof=1) / math.sqrt(400), rel=0.03)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low < interval.estimate < interval.high


def test_seeds_alone_give_the_classical_t_interval():
    means = np.random.default_rng(3).normal(0.5, 0.1, (8, 1))
    interval = mean_interval(scores(np.repeat(means, 10, axis=1)))
    half = 2.365 * means.std(ddof=1) / math.sqrt(8)  # t with 7 degrees of freedom
    assert (interval.low, interval.high) == pytest.approx((means.mean() - half, means.mean() + half), abs=0.04 * half)


def test_pictures_with_more_questions_weigh_more():
    interval = mean_interval(scores([[1.0] * 10 + [0.0] * 10], weights=[9] * 10 + [1] * 10))
    assert 0.75 < interval.low < interval.estimate == 0.9 < interval.high < 1


def test_seeds_are_paired():
    """Runs that share a seed move together: what they share is not in their difference."""
    b = np.array([[0.1], [0.5], [0.9]]) * np.ones((3, 20))
    assert paired_difference(scores(b + 0.05), scores(b)) == Interval(*[pytest.approx(0.05)] * 3)


def test_questions_of_a_picture_are_one_cluster():
    """Four equal answers about each picture are worth no more than one."""
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 50))
    assert mean_interval(scores(values, weights=[4] * 50)) == mean_interval(scores(values))


def test_a_spread_over_seeds_widens_the_interval():
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 200))
    alike = mean_interval(scores(np.repeat(values, 3, axis=0)))
    spread = mean_interval(scores(values + np.array([[-0.1], [0.0], [0.1]])))
    assert width(spread) > 5 * width(alike)
    assert alike.estimate == pytest.approx(spread.estimate)


def test_pairing_is_narrower_on_correlated_answers():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.5, 0.2, (1, 100))
    a = scores(difficulty + rng.normal(0.02, 0.02, (3, 100)))
    b = scores(difficulty + rng.normal(0.0, 0.02, (3, 100)))
    paired = paired_difference(a, b)
    unpaired = math.hypot(width(mean_interval(a)), width(mean_interval(b)))
    assert width(paired) < unpaired / 5
    assert verdict(paired) == "better"


def test_opposite_order_gives_the_opposite_verdict():
    a, b = scores([[0.7, 0.8, 0.9, 0.8]] * 3), scores([[0.2, 0.1, 0.2, 0.3]] * 3)
    assert (verdict(paired_difference(a, b)), verdict(paired_difference(b, a))) == ("better", "worse")
    assert paired_difference(a, a) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.2, "no difference shown"),
        (0.0, 0.2, "no difference shown"),
        (-0.2, 0.0, "no difference shown"),
    ],
)
def test_verdict(low, high, expected):
    assert verdict(Interval((low + high) / 2, low, high)) == expected


def test_deterministic_by_seed_and_blind_to_order():
    values = np.random.default_rng(0).normal(0.5, 0.1, (3, 30))
    straight = scores(values)
    backwards = {seed: dict(reversed(means.items())) for seed, means in reversed(straight.items())}
    assert mean_interval(straight, seed=4) == mean_interval(backwards, seed=4) != mean_interval(straight, seed=5)


def test_a_wider_confidence_gives_a_wider_interval():
    a = scores(np.random.default_rng(0).normal(0.5, 0.1, (3, 30)))
    assert width(mean_interval(a, confidence=0.99)) > width(mean_interval(a)) > width(mean_interval(a, confidence=0.8))


def test_degenerate_input_is_refused():
    one, two = scores([[0.5]]), scores([[0.5, 0.6]])
    with pytest.raises(ValueError, match=r"1 picture\(s\)"):
        mean_interval(one)
    with pytest.raises(ValueError, match="no graded run"):
        mean_interval({})
    with pytest.raises(ValueError, match=r"seeds 0 and 1 were not asked the same about 1 picture\(s\), e.g. 'p0001'"):
        mean_interval({0: two[0], 1: one[0]})
    with pytest.raises(ValueError, match="the two policies were not asked the same"):
        paired_difference(two, scores([[0.5, 0.6]], weights=[1, 2]))
    with pytest.raises(ValueError, match=r"seeds \[0\] and \[1\] cannot be paired"):
        paired_difference(two, scores([[0.5, 0.6]], seeds=[1]))
    with pytest.raises(ValueError, match="with and without a seed"):
        mean_interval({None: two[0], 0: two[0]})
    with pytest.raises(ValueError, match="not finite"):
        mean_interval(scores([[0.5, math.nan]]))


def coverage(num_studies, seeds, pictures, answers, num_seeds=3, num_pictures=60):
    """Share of studies whose interval holds the true mean 0, by the spread of seeds, of pictures (skewed), of answers.

    Second: the same for the plain percentile bootstrap, as the yardstick.
    """
    rng = np.random.default_rng(0)
    ours = plain = 0
    for _ in range(num_studies):
        values = seeds * rng.normal(size=(num_seeds, 1)) + pictures * (rng.exponential(size=(1, num_pictures)) - 1)
        values = values + answers * rng.normal(size=(num_seeds, num_pictures))
        interval = mean_interval(scores(values), resamples=500)
        ours += interval.low <= 0 <= interval.high
        drawn = [
            values[np.ix_(rng.integers(0, num_seeds, num_seeds), rng.integers(0, num_pictures, num_pictures))].mean()
            for _ in range(300)
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
    return ours / num_studies, plain / num_studies


def test_coverage_when_seeds_dominate():
    ours, plain = coverage(150, seeds=0.3, pictures=0.1, answers=0.1)
    assert ours > 0.87 > 0.82 > plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "num_seeds"),
    [((0.3, 0.1, 0.1), 3), ((0.1, 0.3, 0.2), 3), ((0.03, 0.3, 0.2), 3), ((0.0, 0.3, 0.2), 1), ((0.1, 0.3, 0.2), 5)],
)
def test_coverage(spread, num_seeds):
    ours, _ = coverage(1000, *spread, num_seeds=num_seeds)
    assert 0.90 < ours < 0.99
