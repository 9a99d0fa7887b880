"""Events have the shape of those that OpenAI's guide prints, and the numbers of history.json."""

import pytest

from tasks.models.events import events

GRADERS = {"right": "python", "style": "score_model", "all": "multi"}
ROW = {
    "reward": 0.5, "reward_graders/right": 0.25, "reward_graders/style": 0.75, "num_graded": 8, "unresponsive": 0.125,
    "latency/right": 0.01, "latency/style": 2.0, "reasoning_tokens": 10.0, "completion_length": 12.0,
    "errors/right/python_grader_runtime": 2, "errors/style/model_grader_server": 1, "beside/formula_parse": 3,
    "usage/style/prompt_tokens": 80, "seconds": 5.0, "seconds_rollout": 2.0, "seconds_update": 1.0,
}  # fmt: skip


@pytest.fixture
def told() -> list[dict]:
    steps = [{"step": 1, **ROW}, {"step": 2, **ROW, "reward": 0.625}]
    val = [{"step": 0, **ROW, "reward": 0.25}, {"step": 2, **ROW, "reward": 0.75, "seconds": 4.0}]
    return list(events(GRADERS, steps, val, created=1000.0))


def test_there_is_one_a_step_and_one_before_the_first(told):
    assert [event["data"]["step"] for event in told] == [0, 1, 2]
    assert [event["created_at"] for event in told] == [1005, 1010, 1019]
    assert all(event["object"] == "fine_tuning.job.event" and event["type"] == "metrics" for event in told)
    assert {event["data"]["total_steps"] for event in told} == {2}


def test_a_validation_step_tells_of_train_and_valid(told):
    data = told[-1]["data"]
    assert data["scores"]["train_reward_mean"] == data["train_mean_reward"] == 0.625
    assert data["scores"]["valid_reward_mean"] == data["full_valid_mean_reward"] == 0.75
    right = {"name": "right", "type": "python", "train_reward_mean": 0.25, "valid_reward_mean": 0.25}
    assert data["scores"]["graders"][0] == right
    assert data["timing"]["step"] == {"eval": 4.0, "sampling": 2.0, "training": 1.0, "full_iteration": 9.0}
    assert data["timing"]["graders"][1]["train_execution_latency_mean"] == 2.0
    assert data["usage"]["samples"]["train_reasoning_tokens_count"] == 80.0
    assert data["usage"]["graders"] == [
        {"name": "style", "type": "score_model"}
        | {f"{side}_{kind}_mean": n / 8 for side in ("train", "valid") for kind, n in TOKENS.items()}
        | {f"{side}_{kind}_count": n for side in ("train", "valid") for kind, n in TOKENS.items()}
    ]
    assert data["mean_unresponsive_rewards"] == 0.125


TOKENS = {"prompt_tokens": 80, "completion_tokens": 0, "cached_tokens": 0}


def test_errors_are_a_mean_and_a_count_of_the_kinds_that_a_grader_has(told):
    right, style, together = told[-1]["data"]["errors"]["graders"]
    assert right["train_python_grader_runtime_error_count"] == 2
    assert right["train_python_grader_runtime_error_mean"] == 0.25
    assert right["valid_sample_parse_error_count"] == 0 and "train_model_grader_server_error_mean" not in right
    assert style["valid_model_grader_server_error_mean"] == 0.125
    assert together["train_formula_parse_error_count"] == 3


def test_the_only_grader_of_a_job_has_the_errors_of_outputs_that_nobody_read():
    row = {**ROW, "errors/right/other": 1, "beside/other": 2}
    (event,) = events({"right": "python"}, [{"step": 1, **row}], [], created=0.0)
    (right,) = event["data"]["errors"]["graders"]
    assert (right["train_other_error_count"], right["train_other_error_mean"]) == (3, 0.375)
    assert right["train_python_grader_runtime_error_count"] == 2


def test_a_step_without_validation_tells_of_train_alone(told):
    data = told[1]["data"]
    assert "valid_reward_mean" not in data["scores"] and data["full_valid_mean_reward"] is None
    assert not any(key.startswith("valid_") for key in data["errors"]["graders"][0])
