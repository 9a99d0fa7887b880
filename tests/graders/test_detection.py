"""Matching and sub-rewards on hand-made numbers."""

import pytest

from tasks.graders.boxes import ScoredBox, iou
from tasks.graders.detection import Match, confidence_reward, iou_reward, match


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),  # they touch
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (2, 2, 4, 7), 10 / 100),  # one inside the other
        ((0, 0, 1e-200, 1e-200), (0, 0, 1e-200, 1e-200), 0),  # the areas underflow
    ],
)
def test_iou(a, b, expected):
    assert iou(a, b) == iou(b, a) == pytest.approx(expected, abs=1e-15)


def test_a_match_needs_more_than_the_threshold():
    half = ScoredBox((0, 0, 10, 10), 0.9)  # IoU with the gold box is exactly 0.5
    assert match([half], [(0, 0, 10, 20)], 0.5) == (Match(0.9, 0.0),)
    assert match([half], [(0, 0, 10, 20)], 0.49) == (Match(0.9, 0.5),)


def test_the_more_confident_prediction_takes_the_gold_box():
    good, better = ScoredBox((0, 0, 10, 9), 0.9), ScoredBox((0, 0, 10, 10), 0.8)
    assert match([better, good], [(0, 0, 10, 10)], 0.5) == (Match(0.9, 0.9), Match(0.8, 0.0))


def test_equal_confidences_go_by_overlap():
    good, better = ScoredBox((0, 0, 10, 9), 0.9), ScoredBox((0, 0, 10, 10), 0.9)
    assert match([good, better], [(0, 0, 10, 10)], 0.5) == (Match(0.9, 1.0), Match(0.9, 0.0))


def test_a_prediction_takes_the_gold_box_it_fits_best():
    gold = [(0, 0, 10, 10), (0, 0, 10, 8)]
    matches = match([ScoredBox((0, 0, 10, 8), 0.9), ScoredBox((0, 0, 10, 10), 0.8)], gold, 0.5)
    assert matches == (Match(0.9, 1.0), Match(0.8, 1.0))


def test_gold_boxes_that_fit_alike_are_taken_in_any_order_of_gold():
    flat, upright = (0, 0, 10, 8), (0, 0, 8, 10)
    predictions = [ScoredBox((0, 0, 10, 10), 0.9), ScoredBox(flat, 0.8)]
    assert match(predictions, [flat, upright], 0.7) == match(predictions, [upright, flat], 0.7)


def test_rewards_by_hand():
    matches = (Match(0.9, 0.8), Match(0.4, 0.0))
    assert iou_reward(matches, 1) == pytest.approx(0.8 / 2)  # a box too many
    assert iou_reward(matches, 4) == pytest.approx(0.8 / 4)  # two omitted
    brier = (1 - 0.1**2) - 0.4**2
    assert confidence_reward(matches, 1) == pytest.approx((1 + brier / 2) / 2)
    assert confidence_reward(matches, 4) == pytest.approx((1 + brier / 4) / 2)
    assert confidence_reward((Match(1.0, 0.0),), 1) == 0  # sure and wrong
    assert confidence_reward((), 2) == 0.5  # no information


def test_nothing_there():
    assert (iou_reward((), 0), confidence_reward((), 0)) == (1, 1)
    assert (iou_reward((Match(0.0, 0.0),), 0), confidence_reward((Match(0.0, 0.0),), 0)) == (0, 0)
