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


CROWD = (100, 0, 200, 100)


@pytest.mark.parametrize(
    ("box", "gold", "left"),
    [
        pytest.param((110, 10, 150, 50), [], (), id="inside the crowd: as if not stated"),
        pytest.param((60, 0, 160, 100), [], (), id="more than half of it inside"),
        pytest.param((50, 0, 150, 100), [], (Match(0.9, 0.0),), id="half inside is not enough"),
        pytest.param((0, 0, 1000, 1000), [], (Match(0.9, 0.0),), id="the whole picture hides in no crowd"),
        pytest.param((110, 10, 150, 50), [(110, 10, 150, 50)], (Match(0.9, 1.0),), id="an object in the crowd counts"),
    ],
)
def test_a_box_on_a_region_to_ignore_is_neither_right_nor_wrong(box, gold, left):
    assert match([ScoredBox(box, 0.9)], gold, 0.5, ignore=[CROWD]) == left


def test_where_labels_lack_only_matches_count():
    found, other = ScoredBox((0, 0, 10, 10), 0.9), ScoredBox((500, 500, 600, 600), 0.8)
    assert match([found, other], [(0, 0, 10, 10)], 0.5, exhaustive=False) == (Match(0.9, 1.0),)
    assert match([found, found], [(0, 0, 10, 10)], 0.5, exhaustive=False) == (Match(0.9, 1.0),)


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
