"""The engine kshot on the shipped model: what a step changes, logs and leaves alone."""

import json

import pytest
import torch
from peft import PeftModel

from tasks import rft
from tasks.graders import Grade
from tasks.graders.batch import InvalidRewards
from tasks.models.generate import answer
from tasks.rl.grpo import Grpo
from tasks.rl.policy import Policy, get_tokens
from tasks.rl.ppo import Ppo
from tasks.rl.trainer import Sampler, Trainer

LORA = {"r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": ".*language_model.*(q_proj|v_proj|up_proj)"}


def with_lora(job):
    model = job.params.model.model_validate({**job.params.model.model_dump(), "lora": LORA})
    job.params = job.params.model_copy(update={"model": model})
    return job


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_run_changes_the_weights_and_leaves_curves_and_a_folder(make_job, tmp_path):
    job = make_job(warmup_steps=1)
    model, validation, steps = rft.ENGINES["kshot", "grpo"](job)
    base = job.load().state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in model.state_dict().items())
    job.save(model, tmp_path / "grpo", validation, steps)
    history = json.loads((tmp_path / "grpo" / "history.json").read_text())
    assert [row["step"] for row in history["steps"]] == [1, 2]
    assert [row["learning_rate"] for row in history["steps"]] == [0.0, 1e-4]
    assert [point["step"] for point in history["val"]] == [0, 2]
    logged = {
        "loss",
        "reward",
        "reward_std",
        "reward_iou",
        "kl",
        "entropy",
        "completion_length",
        "truncated",
        "invalid",
    }
    logged |= {"zero_variance", "clip_fraction", "grad_norm", "seconds_rollout", "seconds_grade", "seconds_update"}
    assert logged | {"tokens_per_second"} <= set(history["steps"][0])
    assert any(name.startswith("failed_") for name in history["steps"][0])
    budget, sampled = history["budget"], sum(row["completion_tokens"] for row in history["steps"])
    assert (budget["completion_tokens_sampled"], budget["completion_tokens_trained"]) == (sampled, sampled)
    assert budget["gradient_steps"] == 2
    assert budget["prompt_tokens_trained"] == budget["prompt_tokens_sampled"] > 0


@pytest.mark.parametrize(
    ("make_algorithm", "beta", "forwards"), [(Grpo, 0.0, 0), (Grpo, 0.04, 1), (Ppo, 0.01, 2)], ids=str
)
def test_every_forward_pass_that_teaches_nothing_is_counted(make_job, monkeypatch, make_algorithm, beta, forwards):
    """The reference's and PPO's values: what SFT may spend too where grid.matched is flops."""
    trainer, scored, score = Trainer(make_job(beta=beta), make_algorithm), [], Policy.score

    def counted(policy, groups):
        scored.extend(group.size for group in groups if not torch.is_grad_enabled())
        return score(policy, groups)

    monkeypatch.setattr(Policy, "score", counted)
    trainer.step()
    budget = trainer.job.budget
    assert budget.tokens_scored == sum(scored)
    assert sum(scored) == forwards * (budget.prompt_tokens_sampled + budget.completion_tokens_sampled)


def test_the_same_seed_gives_the_same_weights(make_job):
    first, second = (rft.ENGINES["kshot", "grpo"](make_job())[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_answers_are_the_same_with_the_engines_attention(make_job):
    job = make_job()
    arguments = (job.processor, job.params.prompt, job.val, job.pool, 4, 40)
    assert answer(Trainer(job, Grpo).model, *arguments) == answer(job.load(), *arguments)


def test_micro_batches_do_not_change_the_step(make_job):
    whole, parts = (Trainer(make_job(micro_batch_tokens=budget), Grpo) for budget in (100_000, 100))
    first, second = whole.step(), parts.step()
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-6)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_without_spread_the_loss_has_only_the_reference(make_job, beta, monkeypatch):
    """At beta 0 such groups are left out; with beta they are still held to the reference."""
    job = make_job(beta=beta, num_iterations=2)
    trainer = Trainer(job, Grpo)
    reward = job.grader("", job.train[0])
    monkeypatch.setattr(job, "grader", lambda text, question: reward)
    with torch.no_grad():
        trainer.policy.head.weight.mul_(1.01)  # no longer the reference
    before = weights(trainer.model)
    metrics = trainer.step()
    assert metrics["zero_variance"] == 1.0
    assert ("kl" in metrics) == (beta > 0)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) == (beta == 0)


def test_groups_left_out_count_in_the_normalisation(make_job):
    """beta 0, one of two groups without spread: the loss and the gradient are those of both in the update."""
    trainer = Trainer(make_job(beta=0.0), Grpo)
    prompts = [trainer.prompt(0), trainer.prompt(5)]
    groups, _ = trainer.grade([0, 5], prompts, trainer.roll_out(prompts))
    groups[0].rewards, groups[1].rewards = torch.tensor([0.2] * 4), torch.tensor([0.0, 1.0, 0.5, 0.5])
    trainer.algorithm.prepare(groups)
    assert list(trainer.algorithm.updates(groups, trainer.generator)) == [[groups[1]]]
    lengths = torch.cat([group.lengths for group in groups])
    torch.testing.assert_close(groups[1].tokens["weights"][0], 1 / (8 * lengths[4].float()))
    assert get_tokens(groups, "advantages")[: lengths[:4].sum()].tolist() == [0.0] * int(lengths[:4].sum())


def test_what_was_cut_off_is_not_imitated(make_job):
    job = make_job(max_completion_length=12)
    trainer = Trainer(job, Grpo)
    prompts = [trainer.prompt(0)]
    rollout = trainer.roll_out(prompts)
    job.grader = lambda text, question: Grade(1.0, {"iou": 1.0}, None)
    rollout.ended[:] = torch.tensor([True, False, False, True])
    (group,), _ = trainer.grade([0], prompts, rollout)
    assert (group.right.tolist(), group.rewards.tolist()) == ([True, False, False, True], [1.0] * 4)


def test_lora_trains_the_adapter_alone_and_the_reference_is_the_model_without_it(make_job):
    trainer = Trainer(with_lora(make_job(learning_rate=1e-2)), Grpo)
    assert isinstance(trainer.model, PeftModel)
    before = weights(trainer.model)
    first, second = trainer.step(), trainer.step()
    after = trainer.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if "lora" in name
    }
    assert abs(first["kl"]) < 1e-6  # no dropout: the first update scores as the rollout did
    assert second["kl"] > 1e-4


def test_half_precision_trains_with_checkpointed_activations(make_job):
    job = make_job(learning_rate=1e-3)
    model = job.params.model.model_copy(update={"dtype": "bfloat16"})
    job.params = job.params.model_copy(update={"model": model})
    trainer = Trainer(job, Grpo)
    before = weights(trainer.model)
    assert trainer.model.is_activation_checkpointing
    metrics = trainer.step()
    assert 0 < metrics["grad_norm"] < 100
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("make_algorithm", [Grpo, pytest.param(Ppo, marks=pytest.mark.slow)])
def test_mixed_precision_computes_in_half_and_learns_in_float32(make_job, make_algorithm):
    """A step of 1e-6, which bfloat16 weights would round away, is taken."""
    job = make_job(learning_rate=1e-6)
    model = job.params.model.model_copy(update={"compute": "bfloat16"})
    job.params = job.params.model_copy(update={"model": model})
    trainer = Trainer(job, make_algorithm)
    assert trainer.model.is_activation_checkpointing
    prompts = [trainer.prompt(n) for n in range(4)]
    groups, _ = trainer.grade([*range(4)], prompts, trainer.roll_out(prompts))
    with torch.no_grad():
        half = trainer.policy.score(groups)[0]
        trainer.policy.base.computing = torch.float32
        trainer.policy.pictures.encode(prompts)
        exact = trainer.policy.score(groups)[0]
        trainer.policy.base.computing = torch.bfloat16
    for told in (half, get_tokens(groups, "old_logprobs")):
        assert 0 < (told - exact).abs().mean() < 0.02
    before = weights(trainer.model)
    assert 0 < trainer.step()["grad_norm"] < 100
    after = trainer.model.state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert {trainer.optimizer.state[p]["exp_avg"].dtype for p in trainer.trained} == {torch.float32}
    moved = max((after[name] - before[name]).abs().max().item() for name in before)
    assert 0 < moved < 3e-6  # PPO makes two updates


def test_a_grader_that_fails_stops_the_run(make_job, monkeypatch):
    job = make_job()
    monkeypatch.setattr(job, "grader", lambda text, question: 1 / 0)
    with pytest.raises(InvalidRewards, match="ZeroDivisionError"):
        Trainer(job, Grpo).step()


@pytest.mark.parametrize(("engine", "algorithm"), [("kshot", "grpo"), ("kshot", "ppo"), ("trl", "grpo")])
def test_a_run_ends_with_the_step_that_leaves_the_reference(make_job, engine, algorithm):
    """The weights kept are then those from before, though every step is better on val than the one before it."""
    far = {"steps": 6, "eval_steps": 1, "warmup_steps": 0, "learning_rate": 3e-2, "beta": 1e-6, "max_kl": 0.05}
    job = make_job(algorithm, **far)
    rewards = iter(range(7))
    job._score = lambda model: {"reward": next(rewards)}
    with pytest.warns(UserWarning, match="above rft.max_kl"):
        _, validation, steps = rft.ENGINES[engine, algorithm](job)
    assert len(steps) < 6
    assert not steps[-1]["kl"] <= 0.05 and all(row["kl"] <= 0.05 for row in steps[:-1])
    assert validation.best_step == len(steps) - 2


def test_every_question_comes_as_often_as_any_other():
    sampler = Sampler(5, torch.Generator().manual_seed(0))
    taken = [number for _ in range(5) for number in sampler.take(3)]
    assert sorted(taken) == sorted([*range(5)] * 3)
    assert sorted(taken[:5]) == [*range(5)]
