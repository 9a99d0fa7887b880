"""Our loss and its gradient against TRL's `_compute_loss` on the same rollouts; the parts by hand."""

import pytest
import torch

from tasks.rl.grpo import Grpo
from tasks.rl.losses import AGGREGATIONS, k3, policy_loss, token_weights, value_loss
from tasks.rl.policy import get_tokens, micro_batches, set_tokens
from tasks.rl.trainer import Trainer
from tasks.rl.trl_grpo import make_trainer


def padded(rows: list[torch.Tensor], value: float = 0.0, side: str = "right") -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


def perturbed(groups, name: str, scale: float) -> None:
    """Values (T,) near the old log-probabilities: far enough to reach the clip."""
    old = get_tokens(groups, "old_logprobs")
    set_tokens(groups, name, old + scale * torch.randn(len(old), generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def rolled_out(make_job, tmp_path_factory):
    """Our trainer, TRL's, and groups with advantages, moved old log-probabilities and a moved reference."""
    ours = Trainer(make_job(beta=0.04, temperature=1.2, micro_batch_tokens=300), Grpo)
    theirs = make_trainer(make_job(beta=0.04, temperature=1.2), str(tmp_path_factory.mktemp("trl")), [])
    numbers = [0, 3, 7, 9]
    prompts = [ours.prompt(number) for number in numbers]
    groups, _ = ours.grade(numbers, prompts, ours.roll_out(prompts))
    groups[0].rewards = torch.tensor([0.1, 0.9, float("nan"), 0.3])
    ours.algorithm.prepare(groups)
    perturbed(groups, "ref_logprobs", 0.3)
    perturbed(groups, "old_logprobs", 0.2)
    return ours, theirs, groups


def their_inputs(groups) -> dict:
    completions = [c for g in groups for c in g.completions]
    lengths = [len(c) for c in completions]
    prompts = [g.prompt for g in groups for _ in g.completions]
    ids = padded([p.input_ids for p in prompts], side="left")
    completion_ids = padded(completions)
    mask = padded([torch.ones(n, dtype=torch.long) for n in lengths])
    types = padded([(p.input_ids == 5).long() for p in prompts], side="left")
    assert types.sum() == sum(int(p.pixels["image_grid_thw"].prod()) // 4 for p in prompts)

    def tokens(name):
        return padded([*get_tokens(groups, name).split(lengths)])

    return {
        "prompt_ids": ids,
        "prompt_mask": padded([torch.ones_like(p.input_ids) for p in prompts], side="left"),
        "completion_ids": completion_ids,
        "completion_mask": mask,
        "pixel_values": torch.cat([p.pixels["pixel_values"] for p in prompts]),
        "image_grid_thw": torch.cat([p.pixels["image_grid_thw"] for p in prompts]),
        "num_images": [1] * len(prompts),
        "mm_token_type_ids": torch.cat([types, torch.zeros_like(completion_ids)], dim=1),
        "advantages": tokens("advantages")[:, 0],
        "old_per_token_logps": tokens("old_logprobs"),
        "ref_per_token_logps": tokens("ref_logprobs"),
        "num_items_in_batch": mask.sum(),
    }


def our_loss(trainer: Trainer, groups) -> float:
    trainer.model.zero_grad()
    trainer.policy.pictures.encode([g.prompt for g in groups])
    total = 0.0
    for batch in micro_batches(groups, trainer.params.micro_batch_tokens):
        logprobs, hidden = trainer.policy.score(batch)
        loss, _ = trainer.algorithm.loss(logprobs, hidden, {name: get_tokens(batch, name) for name in batch[0].tokens})
        loss.backward()
        total += loss.item()
    trainer.policy.pictures.backward()
    return total


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_and_gradient_are_those_of_trl(rolled_out, aggregation):
    ours, theirs, groups = rolled_out
    assert len(list(micro_batches(groups, ours.params.micro_batch_tokens))) > 1
    lengths = torch.cat([g.lengths for g in groups])
    set_tokens(groups, "weights", token_weights(lengths, aggregation, ours.params.max_completion_length))
    theirs.loss_type, theirs.current_gradient_accumulation_steps = aggregation, 1
    theirs.model.zero_grad()
    expected = theirs._compute_loss(theirs.model, their_inputs(groups))
    expected.backward()
    assert our_loss(ours, groups) == pytest.approx(expected.item(), abs=1e-5)
    gradients = dict(ours.model.named_parameters())
    for name, parameter in theirs.model.named_parameters():
        difference = (gradients[name].grad - parameter.grad).abs().max()
        assert difference <= 1e-4 * parameter.grad.abs().max().clamp(min=1e-3), name


def test_what_is_clipped_and_what_is_not_by_hand():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    loss, clipped = policy_loss(ratio.log(), torch.zeros(5), advantages, 0.2, 0.3)
    torch.testing.assert_close(loss, torch.tensor([-1.3, 1.5, -0.5, 0.8, -1.1]))
    assert clipped.tolist() == [True, False, False, True, False]


def test_k3_by_hand():
    """ref / policy = 2: 2 - log 2 - 1, times policy / old = 0.5."""
    kl = k3(*(torch.tensor(p).log() for p in (0.25, 0.5, 0.5)))
    assert kl.item() == pytest.approx(0.5 * (1 - 0.6931472), abs=1e-6)


def test_value_loss_takes_the_worse_of_clipped_and_free_by_hand():
    values, old, returns = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.9]), torch.tensor([2.0, 2.0])
    torch.testing.assert_close(value_loss(values, old, returns, 0.2), torch.tensor([0.5 * 1.8**2, 0.5 * 1.0]))
