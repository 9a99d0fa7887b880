"""Rewards that are none: masked, counted, and a run stopped, naming the grader."""

import math
from dataclasses import dataclass, field

import pytest

from tasks.graders.batch import Batched, InvalidRewards
from tasks.rl.rewards import grade


@dataclass
class Graded:
    reward: float
    failure: str | None = None
    invalid: str | None = None
    sub_rewards: dict = field(default_factory=lambda: {"format": 1.0})


def broken_grader(text: str, question: None) -> Graded:
    if text == "raise":
        raise ZeroDivisionError("division by zero")
    return Graded(float(text), failure="omitted" if text == "0" else None)


def test_invalid_rewards_are_nan_and_counted_beside_the_failures():
    texts = ["0.5", "0", "nan"] + ["1"] * 37
    rewards, right, metrics = grade(broken_grader, texts, [None] * 40)
    assert rewards[:2] == [0.5, 0.0]
    assert math.isnan(rewards[2])
    assert right == [False, False, False] + [True] * 37  # no content among the sub-rewards: a reward above a half
    assert metrics == {"reward_format": 1.0, "failed_omitted": 1 / 40, "invalid": 1 / 40}


@pytest.mark.parametrize("bad", ["raise", "nan", "inf"])
def test_above_five_percent_the_run_stops_and_names_the_grader_and_the_kind(bad):
    grade(broken_grader, [bad] + ["1"] * 19, [None] * 20)
    with pytest.raises(InvalidRewards, match=r"broken_grader .* 2 of 20 .*(ZeroDivisionError|nan|inf)"):
        grade(broken_grader, [bad, bad] + ["1"] * 18, [None] * 20)


@pytest.mark.parametrize(
    ("sub_rewards", "reward", "right"),
    [
        ({"answer": 1.0, "format": 0.0}, 0.4, True),
        ({"answer": 0.0, "format": 1.0, "length": 1.0}, 2 / 3, False),  # equal weights
        ({"answer": 0.1, "format": 1.0}, 0.55, False),  # partial
        ({"label": 0.0, "format": 1.0}, 0.9, False),
        ({"iou": 0.0, "confidence": 1.0, "format": 1.0}, 2 / 3, False),  # junk at confidence 0
        ({"iou": 0.6, "confidence": 0.0, "format": 0.0}, 0.2, True),
        ({"graders/style": 0.0, "graders/right": 1.0}, 0.6, True),
    ],
)
def test_right_is_the_answer_and_not_what_its_form_earns(sub_rewards, reward, right):
    assert grade(lambda text, question: Graded(reward, sub_rewards=sub_rewards), ["?"], [None])[1] == [right]


def test_what_raises_in_a_batch_is_one_completion_and_not_the_batch():
    def grade_all(texts, questions):
        return [broken_grader(text, None) for text in texts]

    rewards, _, metrics = grade(Batched(grade_all), ["raise"] + ["1"] * 19, [None] * 20)
    assert math.isnan(rewards[0]) and rewards[1:] == [1.0] * 19 and metrics["invalid"] == 1 / 20
