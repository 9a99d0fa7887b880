"""Intervals, p-values and verdicts: against theory, against each other, by simulation, and degenerate input."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import SETTINGS, Setting, measure
from tasks.scoring.coco import match
from tasks.scoring.resampling import Resampled, resample_ap, resample_means
from tasks.scoring.statistics import (
    Interval,
    holm,
    interval,
    minimum_detectable,
    p_value,
    superiority,
    variance,
    verdict,
)
from tests.scoring.test_resampling import detected, scores


def resampled(values, **options):
    return resample_means(scores(values), **options)


def made(estimates, pictures, num_pictures=101, resamples=4000):
    """A difference with these estimates of the seeds, and a standard error from pictures, the same for all of them."""
    noise = np.random.default_rng(0).normal(0, 1, resamples)
    noise = pictures * (noise - noise.mean()) / noise.std(ddof=1)
    asked = {f"{i:03}": 1 for i in range(num_pictures)}
    estimates = np.array(estimates, dtype=float)
    return Resampled(tuple(range(len(estimates))), estimates, estimates + noise[:, None], asked)


def width(found):
    return found.high - found.low


def test_one_seed_gives_the_classical_interval_of_a_mean():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    found = interval(resampled(values, resamples=8000))
    assert width(found) == pytest.approx(2 * 1.966 * values.std(ddof=1) / math.sqrt(400), rel=0.03)
    assert found.estimate == pytest.approx(values.mean())


def test_seeds_alone_give_the_classical_t_interval():
    means = np.random.default_rng(3).normal(0.5, 0.1, (8, 1))
    found = interval(resampled(np.repeat(means, 10, axis=1)))
    half = 2.365 * means.std(ddof=1) / math.sqrt(8)  # t with 7 degrees of freedom
    assert (found.low, found.high) == pytest.approx((means.mean() - half, means.mean() + half), rel=1e-3)


def test_the_p_value_is_that_of_the_t_test_in_both_limits():
    means = [0.3, 0.1, 0.2]
    assert p_value(made(means, pictures=1e-9)) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert p_value(made([0.2], pictures=0.1)) == pytest.approx(2 * stats.t.sf(2, 100), rel=1e-6)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_the_p_value_is_at_its_level_at_an_end_of_the_interval(num_seeds, confidence):
    score = made(np.linspace(0.0, 0.1, num_seeds), pictures=0.03)
    found = interval(score, confidence)
    for end in (found.low, found.high):
        moved = Resampled(score.seeds, score.estimates - end, score.replicates - end, score.questions)
        assert p_value(moved) == pytest.approx(1 - confidence, rel=1e-6)


def test_the_two_parts_of_the_variance():
    """What pictures do to all seeds alike, and what is a seed's own: its effect and its luck with each picture."""
    rng = np.random.default_rng(0)
    pictures, luck = rng.normal(0, 0.3, (1, 400)), rng.normal(0, 0.2, (40, 400))
    seeds = rng.normal(0, 0.05, (40, 1))
    found = variance(resampled(seeds + pictures + luck))
    assert found.freedom == (39, 399)
    assert found.pictures == pytest.approx(0.3**2 / 400, rel=0.2)
    assert found.seeds == pytest.approx((0.05**2 + 0.2**2 / 400) / 40, rel=0.5)
    assert variance(resampled(pictures)).seed_share == 0
    assert variance(resampled(np.ones((3, 5)))).total == 0


def test_a_spread_over_seeds_widens_the_interval():
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 200))
    alike = interval(resampled(np.repeat(values, 3, axis=0)))
    spread = interval(resampled(values + np.array([[-0.1], [0.0], [0.1]])))
    assert width(spread) > 5 * width(alike)
    assert alike.estimate == pytest.approx(spread.estimate)


def test_pairing_is_narrower_on_correlated_answers():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.5, 0.2, (1, 100))
    a = resampled(difficulty + rng.normal(0.02, 0.02, (3, 100)))
    b = resampled(difficulty + rng.normal(0.0, 0.02, (3, 100)))
    unpaired = math.hypot(width(interval(a)), width(interval(b)))
    assert width(interval(a - b)) < unpaired / 5
    assert p_value(a - b) < 0.001


def test_no_difference_at_all_and_one_without_any_doubt():
    a = resampled([[0.7, 0.8, 0.9, 0.8]] * 3)
    assert interval(a - a) == Interval(0.0, 0.0, 0.0)
    assert (p_value(a - a), minimum_detectable(a - a)) == (1.0, 0.0)
    assert p_value(Resampled((0,), np.array([0.5]), np.full((100, 1), 0.5), {"p": 1, "q": 1})) == 0.0


def test_deterministic_by_seed_and_blind_to_order():
    straight = scores(np.random.default_rng(0).normal(0.5, 0.1, (3, 30)))
    backwards = {seed: dict(reversed(means.items())) for seed, means in reversed(straight.items())}
    found = interval(resample_means(straight, seed=4))
    assert found == interval(resample_means(backwards, seed=4)) != interval(resample_means(straight, seed=5))


def test_a_wider_confidence_gives_a_wider_interval():
    a = resampled(np.random.default_rng(0).normal(0.5, 0.1, (3, 30)))
    assert width(interval(a, 0.99)) > width(interval(a)) > width(interval(a, 0.8))


def test_a_clipped_interval_holds_its_estimate():
    assert Interval(0.5, -0.1, 1.1).clipped == Interval(0.5, 0.0, 1.0)
    assert Interval(0.5, 0.4, 0.6).clipped == Interval(0.5, 0.4, 0.6)
    above = 1 + 2e-16
    assert Interval(above, above, above).clipped == Interval(above, above, above)


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below the one before), 0.6 x 1.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.04]) == [0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_what_can_be_detected():
    """2.85 standard errors where pictures are the doubt; the more, the fewer seeds, where it is the seeds."""
    assert minimum_detectable(made([0.1], pictures=0.1)) == pytest.approx(0.285, rel=0.02)
    seeds = {n: made([-0.1, 0.1] * (n // 2) + [0.0] * (n % 2), pictures=1e-9) for n in (2, 3, 5, 20)}
    multiples = {n: minimum_detectable(d) / variance(d).total ** 0.5 for n, d in seeds.items()}
    assert multiples == {n: pytest.approx(m, rel=0.03) for n, m in {2: 39.3, 3: 8.78, 5: 4.68, 20: 3.1}.items()}
    assert minimum_detectable(seeds[3], 0.99) > minimum_detectable(seeds[3])


def test_what_one_of_five_ks_must_differ_by_is_what_the_first_step_of_holm_finds():
    for difference in (made([-0.1, 0.0, 0.1], pictures=1e-9), made([-0.1, 0.0, 0.1], pictures=0.03)):
        corrected = minimum_detectable(difference, num_tests=5)
        assert corrected == pytest.approx(minimum_detectable(difference, 0.99))
        assert corrected > 1.2 * minimum_detectable(difference)


def test_superiority_counts_ties_half():
    assert superiority([[1.0, 0.5, 0.2, 0.0]], [[0.5, 0.5, 0.9, -1.0]]) == 2.5 / 4
    a, base = [[1.0, 0.0], [1.0, 1.0]], [[0.5, 0.5]]
    assert superiority(a, base) == 0.75
    assert superiority(base, a) == 0.25
    assert superiority(a, a) == 0.5


@pytest.mark.parametrize(
    ("estimates", "p", "detectable", "expected"),
    [
        ([0.1, 0.2, 0.1], 0.01, 0.2, "better"),
        ([-0.1, -0.2, -0.1], 0.01, 0.01, "worse"),
        ([0.1, 0.2, 0.1], 0.06, 0.04, "no difference shown"),
        ([0.1, 0.2, 0.1], 0.06, 0.06, "too little data"),
        ([0.1, 0.1], 0.001, 0.01, "too little data"),
        ([0.1], 0.001, 0.01, "too little data"),
        ([0.0, 0.0, 0.0], 1.0, 0.0, "too little data"),  # nothing varies
    ],
)
def test_verdict(estimates, p, detectable, expected):
    assert verdict(made(estimates, pictures=0.01), p, detectable, relevant=0.05) == expected


def test_seeds_that_disagree_show_no_difference_however_many_pictures():
    """A percentile bootstrap of these seeds would call it better: every resampled mean is above 0."""
    difference = made([0.001, 0.05, 0.1], pictures=1e-4, num_pictures=10_000)
    assert p_value(difference) > 0.1


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_few_simulated_studies_cover(setting):
    found = measure(setting, num_seeds=3, num=60)
    assert 0.9 < found["coverage"] < 0.99
    assert found["false_findings"] < 0.15
    assert found["power"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_simulated_studies(setting: Setting, num_seeds: int):
    """Two seeds fall short where their spread is what counts; that is why two seeds have no verdict."""
    found = measure(setting, num_seeds, num=2000)
    assert (0.92 if num_seeds == 2 else 0.93) <= found["coverage"] <= 0.97
    assert found["false_findings"] <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)  # two standard errors of the simulation
    assert found["power"] == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
def test_ap_intervals_hold_the_ap_of_as_many_other_pictures():
    """Not that of infinitely many: AP is higher on a small set, here by about one standard error."""
    studies = [detected(np.random.default_rng([2, i]), num_pictures=150) for i in range(300)]
    found = [interval(resample_ap({0: match(rows)}, resamples=300)["ap"]) for rows in studies]
    truth = np.mean([i.estimate for i in found])
    assert 0.92 < np.mean([i.low <= truth <= i.high for i in found]) < 0.98
