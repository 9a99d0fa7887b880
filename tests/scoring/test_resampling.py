"""Scores by seed and their resamples: estimates by hand, pairing, clusters, AP against pycocotools, refused input."""

import math

import numpy as np
import pytest

from tasks.scoring.coco import detection_ap, match
from tasks.scoring.resampling import PictureMean, draws, picture_means, resample_ap, resample_means


def scores(values, weights=None, seeds=None):
    """PolicyScores from an array (seeds, pictures)."""
    values = np.atleast_2d(values)
    seeds = range(len(values)) if seeds is None else seeds
    weights = [1] * values.shape[1] if weights is None else weights
    return {
        seed: {f"p{i:04}": PictureMean(float(x), w) for i, (x, w) in enumerate(zip(line, weights, strict=True))}
        for seed, line in zip(seeds, values, strict=True)
    }


def detected(rng, num_pictures=20, skill=0.7):
    """Rows of one category or two a picture; a box is found with probability `skill`, beside junk."""
    rows = []
    for picture in range(num_pictures):
        for asked in ("cat", "dog")[: 1 + picture % 2]:
            x, y = rng.uniform(0, 700, 2)
            box, junk = [x, y, x + 200, y + 200], [0, 900, 50, 950]
            boxes = ([box] if rng.random() < skill else []) + ([junk] if rng.random() < 0.5 else [])
            stated = {"ignore": [], "exhaustive": True, "boxes": boxes, "confidences": rng.random(len(boxes)).tolist()}
            rows.append({"record_id": f"{picture:03}", "asked": asked, "gold": [box]} | stated)
    return rows


def test_picture_means():
    rows = [("p", 1.0), ("q", 0.5), ("p", 0.0)]
    assert picture_means({"record_id": p, "reward": r} for p, r in rows) == {
        "p": PictureMean(0.5, 2),
        "q": PictureMean(0.5, 1),
    }


def test_estimates_by_hand():
    a = resample_means(scores([[0.2, 0.8], [0.4, 1.0]], weights=[3, 1]))
    b = resample_means(scores([[0.1, 0.5], [0.1, 0.9]], weights=[3, 1]))
    base = resample_means(scores([[0.0, 0.4]], weights=[3, 1], seeds=[None]))
    # (3 x 0.2 + 0.8) / 4 and (3 x 0.4 + 1.0) / 4: every question counts alike, and then every seed.
    assert a.estimates == pytest.approx([0.35, 0.55])
    assert a.estimate == pytest.approx(0.45)
    assert (a - b).estimates == pytest.approx([0.35 - 0.2, 0.55 - 0.3])
    assert base.estimate == pytest.approx(0.1)
    for difference, seeds in ((a - base, [0.25, 0.45]), (base - a, [-0.25, -0.45])):
        assert difference.seeds == (0, 1) and difference.estimates == pytest.approx(seeds)


def test_a_draw_is_one_less_than_the_pictures_and_the_same_for_all():
    counts = np.concatenate(list(draws(7, 600, seed=3)))
    assert counts.shape == (600, 7) and (counts.sum(axis=1) == 6).all() and counts.max() > 2
    assert (counts == np.concatenate(list(draws(7, 600, seed=3)))).all()
    assert counts.mean(axis=0) == pytest.approx([6 / 7] * 7, abs=0.15)


def test_replicates_spread_as_the_mean_does():
    values = np.random.default_rng(0).normal(0.5, 0.1, 200)
    replicates = resample_means(scores(values), resamples=4000).replicates[:, 0]
    assert replicates.std() == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.03)


def test_questions_of_a_picture_are_one_cluster():
    """Four equal answers about each picture are worth no more than one."""
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 50))
    many, one = resample_means(scores(values, weights=[4] * 50)), resample_means(scores(values))
    assert (many.replicates == one.replicates).all()


def test_policies_are_read_on_the_same_draws():
    values = np.random.default_rng(0).normal(0.5, 0.1, (3, 50))
    difference = resample_means(scores(values + 0.1)) - resample_means(scores(values))
    assert difference.replicates == pytest.approx(np.full((2000, 3), 0.1))


def test_ap_of_each_seed_is_that_of_pycocotools():
    rows = {seed: detected(np.random.default_rng(seed)) for seed in (0, 1)}
    found = resample_ap({seed: match(some) for seed, some in rows.items()}, resamples=300)
    for name in ("ap", "ap50", "ap75"):
        expected = [detection_ap(some)[name] for some in rows.values()]
        assert found[name].estimates == pytest.approx(expected, abs=1e-9)
        assert found[name].replicates.shape == (300, 2)
        assert 0.02 < found[name].replicates.std(axis=0).max() < 0.3
    same = resample_ap({0: match(rows[0])}, resamples=300)["ap"] - resample_ap({0: match(rows[0])}, resamples=300)["ap"]
    assert (same.replicates == 0).all()


def test_ap_of_all_right_and_of_nothing():
    """The gold answer has 1 on every draw, the empty one 0, and a hundred boxes where nothing is next to nothing."""
    rows = detected(np.random.default_rng(0))
    answers = {
        1: [row | {"boxes": row["gold"], "confidences": [1.0]} for row in rows],
        0: [row | {"boxes": [], "confidences": []} for row in rows],
    }
    for ap, some in answers.items():
        replicates = resample_ap({0: match(some)}, resamples=100)["ap"].replicates
        assert replicates == pytest.approx(np.full((100, 1), ap))
    junk = [[900 + i % 10, 900 + i // 10, 990, 995] for i in range(100)]
    hacked = [row | {"boxes": junk, "confidences": [1.0] * 100} for row in rows]
    assert resample_ap({0: match(hacked)}, resamples=100)["ap"].replicates.max() < 0.1


def test_degenerate_input_is_refused():
    one, two = scores([[0.5]]), scores([[0.5, 0.6]])
    with pytest.raises(ValueError, match=r"1 picture\(s\)"):
        resample_means(one)
    with pytest.raises(ValueError, match="no graded run"):
        resample_means({})
    with pytest.raises(ValueError, match=r"seeds 0 and 1 were not asked the same about 1 picture\(s\), e.g. 'p0001'"):
        resample_means({0: two[0], 1: one[0]})
    with pytest.raises(ValueError, match="the two policies were not asked the same"):
        resample_means(two) - resample_means(scores([[0.5, 0.6]], weights=[1, 2]))
    with pytest.raises(ValueError, match=r"seeds \[0\] and \[1\] cannot be paired"):
        resample_means(two) - resample_means(scores([[0.5, 0.6]], seeds=[1]))
    with pytest.raises(ValueError, match="with and without a seed"):
        resample_means({None: two[0], 0: two[0]})
    with pytest.raises(ValueError, match="not finite"):
        resample_means(scores([[0.5, math.nan]]))
    rows = detected(np.random.default_rng(0))
    with pytest.raises(ValueError, match="seeds 0 and 1 were not asked the same"):
        resample_ap({0: match(rows), 1: match(rows[1:])})
