"""Rewards that are none: masked, counted, and a run stopped, naming the grader."""

import math
from dataclasses import dataclass, field

import pytest

from tasks.graders.batch import InvalidRewards
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
    rewards, metrics = grade(broken_grader, texts, [None] * 40)
    assert rewards[:2] == [0.5, 0.0]
    assert math.isnan(rewards[2])
    assert metrics == {"reward_format": 1.0, "failed_omitted": 1 / 40, "invalid": 1 / 40}


@pytest.mark.parametrize("bad", ["raise", "nan", "inf"])
def test_above_five_percent_the_run_stops_and_names_the_grader_and_the_kind(bad):
    grade(broken_grader, [bad] + ["1"] * 19, [None] * 20)
    with pytest.raises(InvalidRewards, match=r"broken_grader .* 2 of 20 .*(ZeroDivisionError|nan|inf)"):
        grade(broken_grader, [bad, bad] + ["1"] * 18, [None] * 20)
