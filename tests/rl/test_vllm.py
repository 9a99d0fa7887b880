"""Rollouts by vLLM against a fake server: what is asked for, what the update makes of the answer, what is refused."""

import copy
import importlib.util
import math
from pathlib import Path

import pytest
import torch
import yaml

from tasks.graders.rubric import Grade
from tasks.models.adapters import merged_state
from tasks.params import ParamsError, load_params, validate
from tasks.rl.grpo import Grpo
from tasks.rl.losses import importance, mismatch
from tasks.rl.policy import get_tokens
from tasks.rl.ppo import Ppo
from tasks.rl.trainer import Trainer
from tasks.rl.vllm import VllmError, check
from tasks.rl.vllm_engines import Answer
from tests.rl.fake_vllm import FakeVllm

COLOCATED = {"mode": "colocated", "memory_share": 0.3, "sleep": True, "max_importance": 2.0}
SERVER = {"mode": "server", "address": "http://127.0.0.1:8000", "sleep": True, "max_importance": 2.0}
SMALL = {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 6, "learning_rate": 1e-2}
LORA = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": ".*language_model.*(q_proj|v_proj|up_proj)"}


def study(**changed):
    """params.yaml with dotted keys changed."""
    raw = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in changed.items():
        *path, last = key.split("__")
        section = raw
        for part in path:
            section = section[part]
        section[last] = value
    return validate(raw, "params.yaml")


@pytest.fixture
def job(make_job):
    """(section rft.vllm, other keys of rft) -> a job that samples by it."""

    def make(vllm: dict, lora: dict | None = None, **rft):
        job = make_job(**{**SMALL, **rft})
        vllm = study(rft__vllm=vllm).rft.vllm
        model = type(job.params.model).model_validate(
            {**job.params.model.model_dump(), "dtype": "float32", "lora": lora}
        )
        rft = job.params.rft.model_copy(update={"vllm": vllm})
        job.params = job.params.model_copy(update={"rft": rft, "model": model})
        job.grader = by_letters
        return job

    return make


def by_letters(text: str, question) -> Grade:
    """Rewards with spread, which answers of a few tokens would not get."""
    return Grade(reward=sum(map(ord, text)) % 7 / 6, sub_rewards={"letters": 1.0}, failure=None)


@pytest.fixture
def fake(make_job):
    job = make_job()
    server = FakeVllm(job.params.model.path, job.processor)
    yield server
    server.close()


def served(fake, **changed):
    return {**SERVER, "address": fake.address, **changed}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rft__engine": "trl"}, r"rft\.vllm is for rft\.engine kshot"),
        (
            {"launch__num_processes": 2, "launch__backend": "fsdp"},
            r"num_processes 2, launch\.backend fsdp.*launch=single",
        ),
        ({"model__lora": {**LORA, "quantize": "nf4"}}, r"model\.lora\.quantize nf4"),
        ({"rft__vllm": {**SERVER, "memory_share": 0.3}}, r"rft\.vllm\.server\.memory_share"),
        ({"rft__vllm": {**SERVER, "address": "localhost:8000"}}, r"rft\.vllm\.server\.address"),
        ({"rft__vllm": {**COLOCATED, "memory_share": 1.0}}, r"rft\.vllm\.colocated\.memory_share"),
        ({"rft__vllm": {**COLOCATED, "max_importance": 0.5}}, r"rft\.vllm\.colocated\.max_importance"),
    ],
)
def test_what_it_does_not_go_with_is_refused_naming_the_key(changed, said):
    with pytest.raises(ParamsError, match=said):
        study(**{"rft__vllm": COLOCATED, **changed})


def test_without_vllm_installed_the_message_says_what_to_do(job, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VllmError, match=r"not installed here: docs/vllm\.md says how .* \(rft=vllm_server\)"):
        Trainer(job(COLOCATED), Grpo)


def test_a_server_that_is_not_there_or_is_another_is_refused(job, fake):
    with pytest.raises(VllmError, match=r"http://127\.0\.0\.1:1: no server answers .* vllm serve FOLDER"):
        Trainer(job({**SERVER, "address": "http://127.0.0.1:1"}), Grpo)
    fake.name, fake.config["logprobs_mode"] = "other/model", "raw_logprobs"
    with pytest.raises(VllmError, match=r"serves other/model, not model\.path models/tiny; logprobs_mode is raw"):
        Trainer(job(served(fake)), Grpo)
    fake.without = {"/server_info"}
    with pytest.raises(VllmError, match=r"/server_info is not offered there; .* VLLM_SERVER_DEV_MODE=1"):
        Trainer(job(served(fake)), Grpo)


def test_importance_by_hand():
    logprobs, sampled = torch.tensor([0.5, 0.3, 0.9]).log(), torch.tensor([0.5, 0.6, 0.3]).log()
    torch.testing.assert_close(importance(logprobs, sampled, 2.0), torch.tensor([1.0, 0.5, 2.0]))
    told = mismatch(logprobs, sampled, 2.0)
    assert told["mismatch"] == pytest.approx((math.log(2) + math.log(3)) / 3)
    assert told["importance"] == pytest.approx(1.5) and told["importance_max"] == pytest.approx(3.0)
    assert told["importance_cut"] == pytest.approx(1 / 3)


def test_a_rollout_is_what_the_policy_would_sample_and_sleeps_while_it_learns(job, fake):
    trainer = Trainer(job(served(fake)), Grpo)
    assert fake.asleep
    fake.said.clear()
    metrics = trainer.step()
    asked = [
        "/wake_up",
        "/collective_rpc",
        "/reset_encoder_cache",
        "/reset_prefix_cache",
        *["/inference/v1/generate"] * 2,
        "/sleep",
    ]
    assert fake.said == asked and fake.asleep
    # of the whole vocabulary here and of the tokens that are not forbidden there
    assert metrics["mismatch"] < 1e-3 and metrics["importance_cut"] == 0
    assert metrics["grad_norm"] > 0 and 0 < metrics["entropy"] < 5
    budget = trainer.job.budget  # the policy's scores of what was sampled, and the reference's
    assert budget.tokens_scored == 2 * (budget.prompt_tokens_sampled + budget.completion_tokens_sampled)


@pytest.mark.parametrize("lora", [None, LORA, {**LORA, "dora": True}])
def test_changed_weights_reach_the_sampler(job, fake, lora):
    trainer = Trainer(job(served(fake), lora), Grpo)
    trainer.step()
    first, changed = fake.model.state_dict(), copy.deepcopy(merged_state(trainer.model))
    trainer.step()
    second = fake.model.state_dict()
    assert any(not torch.equal(second[name], value) for name, value in first.items())
    assert all(torch.equal(second[name], value) for name, value in changed.items())


@pytest.mark.parametrize("lora", [LORA, {**LORA, "dora": True}])
def test_merging_leaves_the_model_as_it_is_and_gives_what_peft_merges(job, lora):
    model = job(COLOCATED, lora).load()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    kept, merged = copy.deepcopy(model.state_dict()), merged_state(model)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    whole = model.merge_and_unload().state_dict()
    assert set(merged) == set(whole)
    assert all(torch.equal(value, merged[name]) for name, value in whole.items())


@pytest.mark.parametrize("make_algorithm", [Grpo, Ppo])
def test_the_correction_weighs_every_token_of_the_loss(job, fake, make_algorithm):
    """A sampler that calls its tokens half as likely as the policy does makes them count twice, or up to the cap."""
    seen = {}
    for shift, most in ((0.0, 2.0), (-math.log(2), 4.0), (-math.log(2), 1.5)):
        fake.shift = shift
        trainer = Trainer(job(served(fake, max_importance=most)), make_algorithm)
        updates = trainer.algorithm.updates

        def noted(groups, generator, key=(shift, most), updates=updates):
            seen[key] = get_tokens(groups, "weights")
            return updates(groups, generator)

        trainer.algorithm.updates = noted
        metrics = trainer.step()
    plain, doubled, cut = seen.values()
    torch.testing.assert_close(doubled, 2 * plain, rtol=1e-3, atol=0)
    torch.testing.assert_close(cut, 1.5 * plain, rtol=1e-3, atol=0)
    assert metrics["importance_cut"] == 1.0 and metrics["mismatch"] == pytest.approx(math.log(2), rel=1e-3)


def test_a_run_goes_on_from_its_checkpoint(job, fake):
    whole = Trainer(job(served(fake)), Grpo)
    validation = whole.job.validation(2)
    whole.step()
    state = copy.deepcopy(whole.state_dict(validation))
    expected = whole.step()
    resumed = Trainer(job(served(fake)), Grpo)
    resumed.load_state_dict(state, resumed.job.validation(2))
    metrics = resumed.step()
    assert {n: v for n, v in metrics.items() if "seconds" not in n} == {
        n: v for n, v in expected.items() if "seconds" not in n
    }


def test_another_prompt_or_a_control_token_in_the_answer_is_an_error(job, fake):
    trainer = Trainer(job(served(fake)), Grpo)
    prompt = trainer.prompt(0)
    ids = prompt.input_ids.tolist()
    check(prompt, Answer(ids, [[20, 21]], [[-1.0, -1.0]]), trainer.sampling)
    with pytest.raises(VllmError, match=rf"a prompt of {len(ids) - 1} tokens, of which the policy's has {len(ids)}"):
        check(prompt, Answer(ids[1:], [[20]], [[-1.0]]), trainer.sampling)
    with pytest.raises(VllmError, match=r"control tokens \[5\]"):
        check(prompt, Answer(ids, [[20, 5]], [[-1.0, -1.0]]), trainer.sampling)


def test_the_shipped_study_samples_itself():
    assert load_params().rft.vllm is None
