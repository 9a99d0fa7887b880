"""PPO: what is paid where, what the value head learns from, and a run on the shipped model."""

import math

import pytest
import torch

from tasks import rft
from tasks.params import ParamsError, load_params, validate
from tasks.rl.policy import get_tokens
from tasks.rl.ppo import Ppo, adapted, token_rewards
from tasks.rl.trainer import Trainer


def with_ppo(job, **changed):
    own = job.params.rft.ppo.model_copy(update=changed)
    job.params = job.params.model_copy(update={"rft": job.params.rft.model_copy(update={"ppo": own})})
    return job


def test_every_token_pays_and_the_last_one_earns_by_hand():
    rewards = token_rewards(torch.tensor(0.75), torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]), beta=0.1)
    torch.testing.assert_close(rewards, torch.tensor([-0.05, 0.75 + 0.1]))


def prepared(make_job, rewards: list[list[float]], **changed):
    trainer = Trainer(with_ppo(make_job("ppo", prompts_per_step=2), **changed), Ppo)
    prompts = [trainer.prompt(0), trainer.prompt(5)]
    groups, _ = trainer.grade([0, 5], prompts, trainer.roll_out(prompts))
    for group, row in zip(groups, rewards, strict=True):
        group.rewards = torch.tensor(row)
    return trainer, groups, trainer.algorithm.prepare(groups)


def test_at_the_start_values_are_zero_and_returns_are_the_discounted_rewards(make_job):
    """lam 1, gamma 1, the reference is the policy: the return of every token is its completion's reward."""
    _, groups, metrics = prepared(make_job, [[0.0, 1.0, 0.5, 0.25], [0.5, 0.5, 0.5, 0.5]], lam=1.0)
    assert get_tokens(groups, "values").abs().max() == 0
    lengths = groups[0].lengths
    expected = torch.tensor([0.0, 1.0, 0.5, 0.25]).repeat_interleave(lengths)
    torch.testing.assert_close(groups[0].tokens["returns"], expected, rtol=0, atol=1e-4)
    advantages = get_tokens(groups, "advantages")
    assert abs(advantages.mean()) < 1e-5
    assert advantages.var(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert abs(metrics["kl"]) < 1e-6
    torch.testing.assert_close(groups[0].tokens["weights"][0], 1 / (4 * lengths[0].float()))


def test_a_completion_without_a_valid_reward_weighs_nothing_and_is_not_whitened_with(make_job):
    _, groups, _ = prepared(make_job, [[math.nan, 1.0, 0.0, 1.0], [0.5, 0.0, 0.5, 1.0]])
    length = int(groups[0].lengths[0])
    assert groups[0].tokens["weights"][:length].tolist() == [0.0] * length
    others = torch.cat([groups[0].tokens["advantages"][length:], groups[1].tokens["advantages"]])
    assert others.var(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert get_tokens(groups, "advantages").isfinite().all()


def test_updates_see_every_group_once_an_epoch(make_job):
    trainer, groups, _ = prepared(make_job, [[0.0, 1.0, 0.0, 1.0]] * 2, epochs=3, minibatches=2)
    updates = list(trainer.algorithm.updates(groups, torch.Generator().manual_seed(0)))
    assert [len(update) for update in updates] == [1] * 6
    for epoch in range(3):
        prompts = {id(g.prompt) for update in updates[2 * epoch : 2 * epoch + 2] for g in update}
        assert prompts == {id(g.prompt) for g in groups}


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_every_update_is_a_mean_over_its_completions_whatever_its_size(make_job, num):
    """Each completion by its own length. 3 minibatches of 4 groups are of 2, 1 and 1."""
    job = with_ppo(make_job("ppo", prompts_per_step=4), minibatches=num, epochs=1)
    trainer = Trainer(job, Ppo)
    prompts = [trainer.prompt(n) for n in range(4)]
    groups, _ = trainer.grade([*range(4)], prompts, trainer.roll_out(prompts))
    trainer.algorithm.prepare(groups)
    updates = list(trainer.algorithm.updates(groups, trainer.generator))
    assert len(updates) == min(num, 4)
    for update in updates:
        assert get_tokens(update, "weights").sum().item() == pytest.approx(1.0)
        lengths = torch.cat([group.lengths for group in update]).float()
        expected = (1 / (len(lengths) * lengths)).repeat_interleave(lengths.long())
        torch.testing.assert_close(get_tokens(update, "weights"), expected)


def test_a_run_trains_the_policy_and_its_head_and_leaves_a_folder(make_job, tmp_path):
    job = with_ppo(make_job("ppo", steps=3), value_learning_rate=1e-2)
    model, validation, steps = rft.ENGINES["kshot", "ppo"](job)
    base = job.load().state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in model.state_dict().items())
    assert {"kl", "value_loss", "explained_variance", "clip_fraction"} <= set(steps[0])
    assert steps[0]["value"] == 0.0
    assert steps[-1]["value"] != 0.0
    job.save(model, tmp_path / "ppo", validation, steps)
    assert set(job.load().state_dict()) == set(base)


def test_the_penalty_follows_the_kl_to_its_target_by_hand():
    assert adapted(0.1, kl=6.0, target=6.0, share=0.5) == 0.1
    assert adapted(0.1, kl=6.6, target=6.0, share=0.5) == pytest.approx(0.1 * 1.05)
    assert adapted(0.1, kl=60.0, target=6.0, share=1.0) == pytest.approx(0.12)  # a fifth at most
    assert adapted(0.1, kl=-60.0, target=6.0, share=1.0) == pytest.approx(0.08)


def test_an_adaptive_penalty_is_what_the_tokens_pay(make_job):
    trainer, groups, metrics = prepared(make_job, [[0.0, 1.0, 0.0, 1.0]] * 2, target_kl=1e-6, horizon=8)
    assert metrics["beta"] == 0.01
    assert trainer.algorithm.state["beta"] == pytest.approx(0.01 * 0.8)  # no KL yet: below the target
    for group in groups:
        group.tokens["old_logprobs"] = group.tokens["old_logprobs"] + 1.0
    assert trainer.algorithm.prepare(groups)["beta"] == pytest.approx(0.008)
    assert trainer.algorithm.state["beta"] == pytest.approx(0.008 * 1.2)


def test_no_penalty_raises_an_alarm(make_job):
    with pytest.warns(UserWarning, match=r"rft.ppo.beta 0.*collapses"):
        Trainer(with_ppo(make_job("ppo"), beta=0.0), Ppo)


def test_trl_has_no_ppo():
    raw = load_params().model_dump()
    raw["rft"]["engine"] = "trl"
    raw["grid"] |= {"algorithm": ["grpo", "ppo"], "policy": ["sft", "grpo", "ppo"]}
    with pytest.raises(ParamsError, match="trl has no ppo"):
        validate(raw, "params.yaml")
