"""The card of a trained folder: its numbers are those of history.json, its command is the stage's, its folder loads."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForImageTextToText, AutoTokenizer

from tasks import rft
from tasks.models.budget import Budget
from tasks.models.card import licence, model_card
from tasks.models.loading import load_model
from tasks.models.training import arguments
from tasks.models.validation import Validation
from tasks.params import load_params


@pytest.fixture(scope="module")
def saved(make_job, tmp_path_factory):
    """(job, model, folder) of an RFT job that was saved with its base weights, as the best of two checks."""
    job, out = make_job("grpo"), tmp_path_factory.mktemp("policies") / "grpo-1-0"
    job.init, job.budget = Path("models/tiny"), Budget(gradient_steps=2, completion_tokens_sampled=345)
    model = job.load()
    rewards = iter([0.25, 0.5])
    validation = Validation("test", lambda _: {"reward": next(rewards)}, every=2)
    for step in (0, 2):
        validation._check(model, step)
    job.save(model, out, validation, [])
    return job, model, out


def table(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"^\| (\w.*) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE))


def test_the_numbers_are_those_of_the_history(saved):
    _, _, out = saved
    history, shown = json.loads((out / "history.json").read_text()), table(out)
    assert shown["best step"] == "2" and float(shown["best val reward"]) == history["val"][1]["reward"] == 0.5
    assert {name.replace("_", " ") for name in history["budget"]} <= shown.keys()
    assert all(float(shown[name.replace("_", " ")]) == value for name, value in history["budget"].items())
    assert float(shown["seconds"]) == history["seconds"]
    text = (out / "README.md").read_text()
    assert history["train_sha256"] in text and f"{history['num_labelled']} labelled examples in all" in text


def test_the_front_matter_is_the_hubs(saved):
    """The licence is handed on, from the warm-up's card or the base model's."""
    assert licence(saved[2]) == licence("models/tiny")
    data = ModelCard.load(saved[2] / "README.md").data
    assert (data.license, data.base_model, data.pipeline_tag) == ("apache-2.0", "models/tiny", "image-text-to-text")


def test_the_command_is_one_that_the_stage_takes(saved):
    """Of RFT and of SFT: parsed by the stages' own parsers."""
    job, _, out = saved
    command = (out / "README.md").read_text().split("```")[1].strip()
    python, _, module, *words = shlex.split(command)
    assert (python, module) == ("python", "tasks.rft")
    parser = arguments(rft.__doc__)
    parser.add_argument("--algorithm")
    parser.add_argument("--init", type=Path)
    given = parser.parse_args(words)
    assert (given.algorithm, given.init, given.slice, given.out) == ("grpo", Path("models/tiny"), job.slice, out)
    job.policy = "sft"
    assert shlex.split(job.command(out))[2] == "tasks.sft" and "--init" not in job.command(out)
    job.policy = "grpo"


def test_the_folder_loads_with_the_stock_classes(saved):
    _, model, out = saved
    stock = AutoModelForImageTextToText.from_pretrained(out)
    same = model.state_dict()
    assert all(torch.equal(value, same[name].to(value.dtype)) for name, value in stock.state_dict().items())
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"


def test_a_base_model_that_is_not_here_and_a_run_without_steps(saved):
    """Of a hub model the licence is not known here; a warm-up of 0 steps has no val reward."""
    params = load_params()
    model = params.model.model_copy(update={"path": "Qwen/Qwen2-VL-2B-Instruct", "revision": "abc"})
    assert licence(model.path) == "other"
    history = json.loads((saved[2] / "history.json").read_text()) | {"val": [], "best_step": 0}
    text = model_card(model, model.path, history, "true", sees=False)
    assert "best val reward" not in text and "Qwen/Qwen2-VL-2B-Instruct@abc" in text
    assert "AutoModelForCausalLM" in text and "AutoModelForImageTextToText" not in text
    assert load_model(params.model, saved[2]).num_parameters() > 0


def test_an_adapters_card_says_what_it_is_put_on(saved):
    lora = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear", "output": "adapter"}
    raw = load_params().model.model_dump()
    model = type(load_params().model).model_validate({**raw, "path": "Qwen/Qwen3-0.6B", "lora": lora})
    history = json.loads((saved[2] / "history.json").read_text())
    text = model_card(model, model.path, history, "true", sees=False)
    assert 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B")' in text
    assert 'PeftModel.from_pretrained(model, ".")' in text and 'from_pretrained(".")\nprocessor' not in text
