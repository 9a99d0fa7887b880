"""GRPO (DeepSeekMath, arXiv 2402.03300): the group's mean reward is the baseline."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tasks.models import processes
from tasks.params import Rft
from tasks.rl.advantage import group_advantages
from tasks.rl.losses import k3, policy_loss, token_weights
from tasks.rl.policy import Group, Policy, Reference, set_tokens


class Grpo:
    """What GRPO does with the groups of a step. `beta` 0 needs no reference, and leaves out groups without spread."""

    def __init__(self, policy: Policy, params: Rft):
        self._params = params
        self._reference = Reference(policy.model, params.temperature) if params.beta else None
        self.scorings = int(self._reference is not None)  # forward passes of `prepare`
        self.head: nn.Module | None = None  # trained beside the policy
        self.state: dict[str, float] = {}

    def prepare(self, groups: Sequence[Group]) -> dict[str, float]:
        """Advantages, weights and reference log-probabilities of every token."""
        lengths = torch.cat([group.lengths for group in groups])
        advantages, flat = group_advantages(torch.stack([g.rewards for g in groups]), self._params.scale_rewards)
        device = groups[0].prompt.input_ids.device
        every, mine = processes.gather_tokens(lengths)
        weights = token_weights(every, self._params.loss_type, self._params.max_completion_length, mine)
        set_tokens(groups, "weights", weights.to(device))
        set_tokens(groups, "advantages", advantages.flatten().repeat_interleave(lengths).to(device))
        self._used = [g for g, without in zip(groups, flat.tolist(), strict=True) if self._reference or not without]
        if self._reference:
            self._reference.score(groups, self._params.micro_batch_tokens)
        return {"zero_variance": processes.gather_tokens(flat)[0].float().mean().item()}

    def updates(self, groups: Sequence[Group], generator: torch.Generator) -> Iterator[list[Group]]:
        """The groups of each optimizer step. A process makes one without any where another has some."""
        if processes.any_of(bool(self._used)):
            yield from [self._used] * self._params.num_iterations

    def loss(
        self, logprobs: torch.Tensor, hidden: torch.Tensor, tokens: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of these tokens, and metrics summed over them."""
        loss, clipped = policy_loss(
            logprobs, tokens["old_logprobs"], tokens["advantages"], self._params.clip_low, self._params.clip_high
        )
        metrics = {"clip_fraction": clipped.sum()}
        if self._reference:
            kl = k3(logprobs, tokens["old_logprobs"], tokens["ref_logprobs"])
            loss = loss + self._params.beta * kl
            metrics["kl"] = kl.detach().sum()
        return (loss * tokens["weights"]).sum(), metrics
