"""Two processes make the steps of one: the same rollouts, loss and gradients, whatever the algorithm."""

import dataclasses

import pytest
import torch

from tasks.graders.rubric import Grade
from tasks.rl.grpo import Grpo
from tasks.rl.ppo import Ppo
from tasks.rl.self_training import OnlineSelfTraining, gold_tokens
from tasks.rl.trainer import Trainer
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
        seen.setdefault("gradients", [p.grad.clone() if p.grad is not None else None for p in trainer.trained])
        apply()

    trainer.roll_out, trainer.optimizer.step = rolled, applied
    seen["metrics"] = trainer.step()
    seen["budget"] = dataclasses.asdict(job.budget)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "online_st"])
def test_a_step_of_two_processes_is_that_of_one(make_job, algorithm):
    job = own(make_job(algorithm, **SMALL), minibatches=3, epochs=1)
    make = {"grpo": Grpo, "ppo": Ppo}.get(algorithm)
    make = make or (lambda policy, params: OnlineSelfTraining(policy, params, gold_tokens(job)))
    alone, pair = step(job, make), together(2, lambda: step(dataclasses.replace(job), make))
    assert pair[0]["completions"] + pair[1]["completions"] == alone["completions"]
    assert pair[0]["budget"] == pair[1]["budget"] == alone["budget"]
    for one in pair:
        same = {name: alone["metrics"][name] for name in EXACT if name in alone["metrics"]}
        assert {name: one["metrics"][name] for name in same} == pytest.approx(same, rel=1e-5, abs=1e-6)
        for mine, whole in zip(one["gradients"], alone["gradients"], strict=True):
            assert (mine is None) == (whole is None)
            if whole is not None:
                torch.testing.assert_close(mine, whole, rtol=0, atol=1e-6)
    found = zip(pair[0]["gradients"], alone["gradients"], strict=True)
    print("OFF", algorithm, backend, max((a - b).abs().max().item() for a, b in found if b is not None), alone["metrics"]["loss"] - pair[0]["metrics"]["loss"])
