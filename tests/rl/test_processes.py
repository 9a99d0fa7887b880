"""Two processes make the steps of one, sharded or not: the same rollouts, loss and gradients."""

import dataclasses

import pytest
import torch
from torch.distributed.tensor import DTensor

from tasks.graders.rubric import Grade
from tasks.models import processes
from tasks.models.checkpoint import write_state
from tasks.models.loading import load_model
from tasks.planning import memory
from tasks.planning.shapes import shapes
from tasks.rl import sharding
from tasks.rl.grpo import Grpo
from tasks.rl.ppo import Ppo
from tasks.rl.self_training import OnlineSelfTraining, gold_tokens
from tasks.rl.trainer import Trainer
from tasks.schema.launch import Launch
from tasks.schema.model import Lora
from tests.models.twins import TWINS, write_twin
from tests.together import together

SMALL = {"prompts_per_step": 4, "max_completion_length": 24, "micro_batch_tokens": 100, "num_iterations": 2}
EXACT = ("loss", "reward", "reward_std", "completion_tokens", "kl", "entropy", "grad_norm", "clip_fraction")


def own(job, **changed):
    changed = job.params.rft.ppo.model_copy(update=changed)
    job.params = job.params.model_copy(update={"rft": job.params.rft.model_copy(update={"ppo": changed})})
    return job


LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}


def with_model(job, **changed):
    job.params = job.params.model_copy(update={"model": job.params.model.model_copy(update=changed)})
    return job


def shared(job, backend: str):
    """As one of two processes."""
    launch = Launch(backend=backend, num_processes=2)
    return dataclasses.replace(job, params=job.params.model_copy(update={"launch": launch}))


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
    ("algorithm", "backend", "lora"),
    [
        ("grpo", "ddp", None),
        ("ppo", "ddp", None),
        ("online_st", "ddp", None),
        ("grpo", "fsdp", None),
        ("ppo", "fsdp", None),
        ("grpo", "ddp", LORA),
        ("grpo", "ddp", {**LORA, "dora": True}),
        ("grpo", "fsdp", {**LORA, "dora": True}),
        ("ppo", "fsdp", LORA),
    ],
)
def test_a_step_of_two_processes_is_that_of_one(make_job, algorithm, backend, lora):
    job = own(make_job(algorithm, **SMALL), minibatches=3, epochs=1)
    job = with_model(job, lora=lora and Lora(**lora))
    make = {"grpo": Grpo, "ppo": Ppo}.get(algorithm)
    make = make or (lambda policy, params: OnlineSelfTraining(policy, params, gold_tokens(job)))
    alone = step(job, make)
    pair = together(2, lambda: step(shared(job, backend), make))
    assert pair[0]["completions"] + pair[1]["completions"] == alone["completions"]
    assert pair[0]["budget"] == pair[1]["budget"] == alone["budget"]
    for one in pair:
        same = {name: alone["metrics"][name] for name in EXACT if name in alone["metrics"]}
        assert {name: one["metrics"][name] for name in same} == pytest.approx(same, rel=1e-5, abs=1e-6)
        for mine, whole in zip(one["gradients"], alone["gradients"], strict=True):
            assert (mine is None) == (whole is None)
            if whole is not None:
                torch.testing.assert_close(mine, whole, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "lora": Lora(**LORA)}, {"compute": "bfloat16"}],
    ids=["whole weights", "LoRA", "mixed precision"],
)
@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
def test_in_half_precision_both_processes_take_the_same_step(make_job, backend, changed):
    """It is not that of one process to the bit: other batches are rounded otherwise, and other tokens are drawn."""
    job = with_model(make_job("grpo", **SMALL), **changed)
    pair = together(2, lambda: step(shared(job, backend), Grpo))
    assert pair[0]["completions"] != pair[1]["completions"]
    for mine, other in zip(pair[0]["gradients"], pair[1]["gradients"], strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert mine.isfinite().all() and torch.equal(mine, other)
    norms = {one["metrics"]["grad_norm"] for one in pair}
    assert len(norms) == 1 and norms.pop() > 0


@pytest.mark.slow
def test_layers_of_every_family_are_sharded_and_compute_what_they_did(tmp_path):
    models = {family: write_twin(family, tmp_path / family) for family in TWINS}

    def work() -> dict[str, tuple]:
        found = {}
        for family, params in models.items():
            model, ids = load_model(params).eval(), torch.arange(20, 40)[None]
            with torch.no_grad():
                plain = model(input_ids=ids).logits
                sharding.shard(model)
                with sharding.whole(model):
                    gap = (model(input_ids=ids).logits - plain).abs().max().item()
            own = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
            found[family] = len(sharding.layers(model)), gap, own
        return found

    for found in together(2, work):
        for family, (num, gap, own) in found.items():
            assert num == 2 and gap == 0, family
            assert own == shapes(models[family]).decoder.all / 2, family


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA], ids=["whole weights", "LoRA"])
def test_a_sharded_process_holds_what_the_plan_says(make_job, lora):
    job = with_model(make_job("grpo", **SMALL), lora=lora and Lora(**lora))

    def work() -> dict[str, int]:
        trainer = Trainer(shared(job, "fsdp"), Grpo)
        apply, found = trainer.optimizer.step, {}

        def applied():
            found["gradients"] = own_bytes(p.grad for p in trainer.trained if p.grad is not None)
            apply()

        trainer.optimizer.step = applied
        trainer.job.grader = by_letters
        trainer.step()
        adam = [state[name] for state in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
        return found | {"parameters": own_bytes(trainer.model.parameters()), "Adam": own_bytes(adam)}

    sizes = shapes(job.params.model)
    kept = memory.kept(sizes, job.params.model, reference=True, shards=2)
    planned = {"parameters": kept["weights"] + kept.get("adapter", 0), "Adam": kept["Adam"]}
    planned["gradients"] = memory.learning(sizes, job.params.model, shards=2)["gradients"]
    for found in together(2, work):
        assert found == pytest.approx(planned, rel=0.02)  # layers whose rows do not halve are padded


@pytest.mark.slow
def test_a_state_is_gathered_by_the_process_that_writes_it_and_read_by_all(make_job, tmp_path):
    job = make_job("grpo", **SMALL)

    def held(trainer: Trainer) -> list[torch.Tensor]:
        moments = [state["exp_avg"] for p in trainer.trained if (state := trainer.optimizer.state.get(p))]
        return [t.to_local() if isinstance(t, DTensor) else t for t in [*trainer.trained, *moments]]

    def work() -> tuple[int, int]:
        first, second = (Trainer(shared(job, "fsdp"), Grpo) for _ in range(2))
        first.job.grader = by_letters
        first.step()
        state = first.state_dict(first.job.validation(1))
        if processes.rank() == 0:
            write_state(state, tmp_path / "state.pt")
        processes.wait()
        read = torch.load(tmp_path / "state.pt", weights_only=True, mmap=True)
        second.load_state_dict(read, second.job.validation(1))
        assert all(torch.equal(mine, others) for mine, others in zip(held(first), held(second), strict=True))
        sharded = [n for n, p in enumerate(first.trained) if isinstance(p, DTensor)]
        moments = [state["optimizer"][n]["exp_avg"] for n in sharded]
        return sum(state["weights"][n].numel() for n in sharded), sum(map(torch.numel, moments))

    layers = shapes(job.params.model).decoder.all
    assert together(2, work) == [(layers, layers), (0, 0)]


def own_bytes(tensors) -> int:
    """Of what of these this process holds."""
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)
