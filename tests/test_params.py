"""params.yaml: what is bad is refused before any work, naming the key."""

import copy
from pathlib import Path

import pytest
import yaml

from tasks.params import ParamsError, load_params, validate

RAW = yaml.safe_load(Path("params.yaml").read_text())


def changed(key: str, value: object) -> dict:
    raw = copy.deepcopy(RAW)
    *path, last = key.split(".")
    section = raw
    for part in path:
        section = section[part]
    section[last] = value
    return raw


def test_the_shipped_file_loads():
    assert load_params(Path("params.yaml")).grid.policy == ["sft", *load_params().grid.algorithm]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rft.lerning_rate", 1e-4),
        ("rft.learning_rate", "1e-4"),
        ("rft.learning_rate", -1e-4),
        ("rft.learning_rate", float("nan")),
        ("rft.num_generations", 1),
        ("rft.warmup_steps", 40),  # as many as there are steps
        ("rft.engine", "verl"),
        ("sft.steps", -1),
        ("sft.epochs", 1.0),  # beside steps
        ("sft.steps", None),
        ("sft.batch_size", True),
        ("prompt.detection", "Detect everything."),
        ("grid.k", []),
        ("grid.k", [1, 1]),
        ("grid.policy", ["grpo", "sft"]),
        ("grid.algorithm", ["dpo"]),
        ("grid.rerank", ["ppo"]),  # not a policy of the grid
        ("reward_model.samples", 1),
        ("grid.matched", "flops"),  # and k_own as for data
        ("grid.k_own", [1]),
        ("grid.init", "warmup"),  # whose settings are those of sft
        ("grid.init", "base"),
        ("grid.k_warmup", [4]),
        ("warmup.batch_size", 4),  # and grid.init as for a warm-up that is SFT
        ("reward.detection.iou_threshold", 1.5),
        ("reward.classification.lable", 1.0),
        ("reward.grounding.giou", -1.0),
        ("reward.maths.form", "boxed"),
        ("reward.ranking.max_names", 0),
        ("dataset", {"source": "words", "task": "stories", "seed": 0, "num_steps": [4, 2], "num_train": 1}),
        ("dataset.source", "imagenet"),
        ("report.confidence", 95),
        ("typo", 1),
    ],
)
def test_a_bad_value_is_refused_naming_its_key(key, value):
    with pytest.raises(ParamsError) as error:
        validate(changed(key, value), "params.yaml")
    assert key.split(".")[0] in str(error.value)
    assert "params.yaml" in str(error.value)


def test_a_reward_without_any_weight_is_refused():
    raw = changed("reward.grounding", {"iou": 0.0, "format": 0.0})
    with pytest.raises(ParamsError, match=r"reward\.grounding: .*iou, giou, format, length must be above 0"):
        validate(raw, "params.yaml")


@pytest.mark.parametrize(("algorithm", "beta"), [("grpo", "rft.beta"), ("ppo", "rft.ppo.beta")])
def test_a_greatest_kl_needs_a_reference(algorithm, beta):
    raw = changed("rft.max_kl", 0.5)
    raw["grid"] |= {"algorithm": [algorithm], "policy": ["sft", algorithm]}
    raw["rft"]["beta"] = raw["rft"]["ppo"]["beta"] = 0.1
    assert validate(raw, "params.yaml").rft.max_kl == 0.5
    (raw["rft"] if algorithm == "grpo" else raw["rft"]["ppo"])["beta"] = 0.0
    with pytest.raises(ParamsError, match=rf"rft\.max_kl needs {beta} above 0"):
        validate(raw, "params.yaml")


def test_a_target_for_the_kl_needs_a_reference():
    raw = changed("rft.ppo.target_kl", 6.0)
    assert validate(raw, "params.yaml").rft.ppo.target_kl == 6.0
    raw["rft"]["ppo"]["beta"] = 0.0
    with pytest.raises(ParamsError, match=r"rft\.ppo\.target_kl 6\.0 needs rft\.ppo\.beta above 0"):
        validate(raw, "params.yaml")


def test_reranking_needs_samples():
    raw = changed("grid.rerank", ["grpo"])
    with pytest.raises(ParamsError, match=r"set grade\.samples above 0"):
        validate(raw, "params.yaml")
    raw["grade"]["samples"] = 8
    assert validate(raw, "params.yaml").grid.rerank == ["grpo"]


def test_a_budget_that_trl_does_not_count_cannot_be_matched():
    raw = changed("rft.engine", "trl")
    k = raw["grid"]["k"]
    raw["grid"] |= {"matched": "steps", "k_own": [], "k_matched": k, "init": "warmup", "k_warmup": k}
    with pytest.raises(ParamsError, match=r"grid\.matched steps .* rft\.engine trl does not count"):
        validate(raw, "params.yaml")
