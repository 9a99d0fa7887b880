"""Two processes make the steps of one, sharded or not: the same rollouts, loss and gradients."""

import dataclasses

import pytest
import torch

from tasks.graders.rubric import Grade
from tasks.rl import sharding
from tasks.rl.grpo import Grpo
from tasks.rl.ppo import Ppo
from tasks.rl.self_training import OnlineSelfTraining, gold_tokens
from tasks.rl.trainer import Trainer
from tasks.schema.launch import Launch
from tests.together import together

SMALL = {"prompts_per_step": 4, "max_completion_length": 24, "micro_batch_tokens": 100, "num_iterations": 2}
EXACT = ("loss", "reward", "reward_std", "completion_tokens", "kl", "entropy", "grad_norm", "clip_fraction")


def own(job, **changed):
    changed = job.params.rft.ppo.model_copy(update=changed)
    job.params = job.params.model_copy(update={"rft": job.params.rft.model_copy(update={"ppo": changed})})
    return job


def by_letters(text: str, question) -> Grade:
    """Rewards with spread, which a model that has hardly begun to write would not get."""
    return Grade(reward=sum(map(ord, text)) % 7 / 6, sub_rewards={"letters": 1.0}, failure=None)


def step(job, make_algorithm) -> dict:
    """A step's metrics, its completions and the summed gradients of its first update."""
    job.grader, seen = by_letters, {}
    trainer = Trainer(job, make_algorithm)
    roll_out, apply = trainer.roll_out, trainer.optimizer.step

    def rolled(prompts):
        rollout = roll_out(prompts)
        seen["completions"] = [completion.tolist() for completion in rollout.completions]
        return rollout

    def applied():
        gradients = [p.grad for p in trainer.trained]
        seen.setdefault("gradients", [g if g is None else sharding.full(g).clone() for g in gradients])
        apply()

    trainer.roll_out, trainer.optimizer.step = rolled, applied
    seen["metrics"] = trainer.step()
    seen["budget"] = dataclasses.asdict(job.budget)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "backend"),
    [("grpo", "ddp"), ("ppo", "ddp"), ("online_st", "ddp"), ("grpo", "fsdp"), ("ppo", "fsdp")],
)
def test_a_step_of_two_processes_is_that_of_one(make_job, algorithm, backend):
    job = own(make_job(algorithm, **SMALL), minibatches=3, epochs=1)
    make = {"grpo": Grpo, "ppo": Ppo}.get(algorithm)
    make = make or (lambda policy, params: OnlineSelfTraining(policy, params, gold_tokens(job)))
    alone, launch = step(job, make), Launch(backend=backend, num_processes=2)
    shared = job.params.model_copy(update={"launch": launch})
    pair = together(2, lambda: step(dataclasses.replace(job, params=shared), make))
    assert pair[0]["completions"] + pair[1]["completions"] == alone["completions"]
    assert pair[0]["budget"] == pair[1]["budget"] == alone["budget"]
    for one in pair:
        same = {name: alone["metrics"][name] for name in EXACT if name in alone["metrics"]}
        assert {name: one["metrics"][name] for name in same} == pytest.approx(same, rel=1e-5, abs=1e-6)
        for mine, whole in zip(one["gradients"], alone["gradients"], strict=True):
            assert (mine is None) == (whole is None)
            if whole is not None:
                torch.testing.assert_close(mine, whole, rtol=0, atol=1e-6)
