"""Rewards that are none: masked, counted, and a run stopped, naming the grader."""

import ast
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
    if text == "judge":
        return Graded(0.0, invalid="model_grader_server: it is down")
    if text in ("None", "'x'"):
        return Graded(ast.literal_eval(text))
    if text == "none at all":
        return None
    return Graded(float(text), failure="omitted" if text == "0" else None)


def test_invalid_rewards_are_nan_and_counted_beside_the_failures():
    texts = ["0.5", "0", "nan", "raise", "judge", "-inf", "None"] + ["1"] * 93
    rewards, right, metrics = grade(broken_grader, texts, [None] * 100)
    assert rewards[:2] == [0.5, 0.0]
    assert all(map(math.isnan, rewards[2:7]))
    assert right == [False] * 7 + [True] * 93  # no content among the sub-rewards: a reward above a half
    kinds = {"nan", "inf", "ZeroDivisionError", "model_grader_server", "type"}
    assert {name for name in metrics if name.startswith("invalid_")} == {f"invalid_{kind}" for kind in kinds}
    assert all(metrics[f"invalid_{kind}"] == 0.01 for kind in kinds)
    assert (metrics["invalid"], metrics["failed_omitted"]) == (0.05, 0.01)


def test_each_sub_reward_has_its_mean_and_its_spread():
    def grader(text: str, question: None) -> Graded:
        return Graded(1.0, sub_rewards={"iou": float(text), "format": 1.0})

    metrics = grade(grader, ["0", "0.5", "1", "0.5"], [None] * 4)[2]
    assert metrics == {
        "reward_iou": 0.5,
        "reward_iou_std": pytest.approx(math.sqrt(0.125)),
        "reward_format": 1.0,
        "reward_format_std": 0.0,
        "invalid": 0.0,
    }


@pytest.mark.parametrize("bad", ["raise", "nan", "inf", "None", "'x'", "none at all"])
def test_above_five_percent_the_run_stops_and_names_the_grader_and_the_kind(bad):
    grade(broken_grader, [bad] + ["1"] * 19, [None] * 20)
    with pytest.raises(
        InvalidRewards, match=r"broken_grader .* 2 of 20 .*(ZeroDivisionError|nan|inf|a reward of (None|'x'))"
    ):
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
