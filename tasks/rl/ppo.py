"""PPO as ReFT runs it (arXiv 2401.08967): a value head on the policy's hidden states, a penalty on every token.

The head sees what the policy sees, the picture included; it starts at zero, so that the first advantages are the
rewards themselves. A reward comes with the last token; every token pays beta (log policy - log reference). Advantages
are whitened after the returns are made. Unlike ReFT, a prompt has `num_generations` completions, as in GRPO.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tasks.models import processes
from tasks.params import Rft
from tasks.rl.advantage import gae, whiten
from tasks.rl.losses import policy_loss, value_loss
from tasks.rl.policy import Group, Policy, Reference, get_tokens, micro_batches, set_tokens


def token_rewards(reward: torch.Tensor, logprobs: torch.Tensor, ref_logprobs: torch.Tensor, beta: float):
    """(L,) rewards of one completion: the penalty at every token, the grader's reward with the last one."""
    rewards = -beta * (logprobs - ref_logprobs)
    rewards[-1] += reward
    return rewards


def adapted(beta: float, kl: float, target: float, share: float) -> float:
    """The next penalty, after a `share` of the horizon (Ziegler et al., arXiv 1909.08593, section 2.2)."""
    return beta * (1 + min(0.2, max(-0.2, kl / target - 1)) * share)


def _shared(group: Group, among: int) -> Group:
    """The group as one `among` so many over which a loss is a mean."""
    return dataclasses.replace(group, tokens={**group.tokens, "weights": group.tokens["weights"] / among})


class Ppo:
    """What PPO does with the groups of a step. Its own parameters are in `rft.ppo`."""

    def __init__(self, policy: Policy, params: Rft):
        self._policy, self._params, self._own = policy, params, params.ppo
        self.state = {"beta": params.ppo.beta}  # that a checkpoint keeps
        if not self._own.beta:
            warnings.warn("rft.ppo.beta 0: PPO without a penalty collapses (ReFT, arXiv 2401.08967)", stacklevel=2)
        self._reference = Reference(policy.model, params.temperature) if self._own.beta else None
        self.scorings = 1 + (self._reference is not None)  # forward passes of `prepare`: values too
        width = policy.base.config.get_text_config().hidden_size
        self.head: nn.Module | None = nn.Linear(width, 1, device=policy.base.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        """(T,): the return expected when each token is chosen."""
        return self.head(hidden.float())[:, 0]

    def prepare(self, groups: Sequence[Group]) -> dict[str, float]:
        """Values, returns, advantages, and weights of every token; a completion without a valid reward weighs 0."""
        budget = self._params.micro_batch_tokens
        with torch.no_grad():
            for batch in micro_batches(groups, budget):
                set_tokens(batch, "values", self._values(self._policy.score(batch)[1]))
        if self._reference:
            self._reference.score(groups, budget)
        for group in groups:
            self._prepare_group(group)
        valid, _ = processes.gather_tokens(get_tokens(groups, "weights") > 0)
        advantages, own = processes.gather_tokens(get_tokens(groups, "advantages"))
        advantages[valid] = whiten(advantages[valid])
        set_tokens(groups, "advantages", advantages[own])
        metrics = self._metrics(groups, valid)
        if self._own.target_kl is not None:
            metrics["beta"] = self.state["beta"]
            num = len(groups) * len(groups[0].completions) * processes.world()
            self.state["beta"] = adapted(metrics["beta"], metrics["kl"], self._own.target_kl, num / self._own.horizon)
        return metrics

    def _prepare_group(self, group: Group) -> None:
        """The loss of a group is a mean over its completions, each by its own length (ReFT)."""
        lengths = group.lengths.tolist()
        old, values = group.tokens["old_logprobs"], group.tokens["values"]
        references = group.tokens.get("ref_logprobs", old)
        parts = zip(*(tokens.split(lengths) for tokens in (old, references, values)), strict=True)
        advantages, weights = [], []
        for reward, (logprobs, reference, value) in zip(group.rewards.tolist(), parts, strict=True):
            valid = torch.tensor(reward).isfinite().item()
            rewards = token_rewards(reward if valid else 0.0, logprobs, reference, self.state["beta"])
            advantages.append(gae(rewards, value, self._own.gamma, self._own.lam))
            weights.append(torch.full_like(value, valid / (len(lengths) * len(value))))
        group.tokens["advantages"], group.tokens["weights"] = torch.cat(advantages), torch.cat(weights)
        group.tokens["returns"] = group.tokens["advantages"] + values

    def _metrics(self, groups: Sequence[Group], valid: torch.Tensor) -> dict[str, float]:
        """`valid` (T,) of the tokens of all processes."""

        def told(name: str) -> torch.Tensor:
            return processes.gather_tokens(get_tokens(groups, name))[0][valid]

        values, returns, old = map(told, ("values", "returns", "old_logprobs"))
        unexplained = (returns - values).var() / returns.var().clamp(min=1e-12)
        metrics = {"explained_variance": 1 - unexplained.item(), "value": values.mean().item()}
        if self._reference:
            metrics["kl"] = (old - told("ref_logprobs")).mean().item()
        return metrics

    def updates(self, groups: Sequence[Group], generator: torch.Generator) -> Iterator[list[Group]]:
        """The groups of each optimizer step: `epochs` times all of them, in `minibatches` parts by chance, over which
        the loss is a mean, however large; of a part those that this process has.
        """
        num, first = len(groups) * processes.world(), len(groups) * processes.rank()
        for _ in range(self._own.epochs):
            order = torch.randperm(num, generator=generator)
            for part in order.tensor_split(min(self._own.minibatches, num)):
                own = [groups[n - first] for n in part.tolist() if 0 <= n - first < len(groups)]
                yield [_shared(group, among=len(part)) for group in own]

    def loss(
        self, logprobs: torch.Tensor, hidden: torch.Tensor, tokens: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of these tokens, and metrics summed over them."""
        loss, clipped = policy_loss(
            logprobs, tokens["old_logprobs"], tokens["advantages"], self._params.clip_low, self._params.clip_high
        )
        error = value_loss(self._values(hidden), tokens["values"], tokens["returns"], self._own.clip_value)
        loss = loss + self._own.value_coef * error
        return (loss * tokens["weights"]).sum(), {"clip_fraction": clipped.sum(), "value_loss": error.detach().sum()}
