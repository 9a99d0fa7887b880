"""Losses on flat tokens: every tensor is (T,), the tokens of all completions one after the other.

A loss is a sum over tokens with a weight for each, so that micro-batches of any size add up to the loss of the step,
and groups that are left out count as if they were there.
"""

from collections.abc import Callable

import torch

# token weight of each completion (R,) from lengths (R,) and the greatest length. All tokens of a step are in one
# optimizer step, so that bnpo and dapo, which differ in what they average over, agree.
AGGREGATIONS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "grpo": lambda lengths, most: 1 / (lengths * len(lengths)),  # DeepSeekMath, arXiv 2402.03300, equation 3
    "bnpo": lambda lengths, most: (1 / lengths.sum()).expand(len(lengths)),
    "dapo": lambda lengths, most: (1 / lengths.sum()).expand(len(lengths)),  # arXiv 2503.14476, equation 8
    "dr_grpo": lambda lengths, most: torch.ones(len(lengths)) / (len(lengths) * most),  # arXiv 2503.20783
}


def token_weights(lengths: torch.Tensor, aggregation: str, most: int, own: slice = slice(None)) -> torch.Tensor:
    """(T,) weights that make a weighted sum the `aggregation` of completions of these lengths (R,); of the tokens of
    the `own` completions only.
    """
    return AGGREGATIONS[aggregation](lengths.float(), most)[own].repeat_interleave(lengths[own])


def k3(logprobs: torch.Tensor, old_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """Unbiased estimate of KL(policy || reference) at tokens of the old policy: r - log r - 1, r = ref / policy.

    Times policy / old, without which its gradient is not that of the KL (DeepSeek-V3.2, arXiv 2512.02556, equation 7;
    TRL's default).
    """
    log_ratio = ref_logprobs - logprobs
    return (log_ratio.exp() - log_ratio - 1) * (logprobs - old_logprobs).exp()


def policy_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate of each token (PPO, arXiv 1707.06347, equation 7), and whether it is clipped."""
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    low, high = (ratio < 1 - clip_low) & (advantages < 0), (ratio > 1 + clip_high) & (advantages > 0)
    return loss, low | high


def value_loss(values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """0.5 max of the squared error of a value and of the value held within `clip` of the old one (ReFT's code)."""
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())


def importance(logprobs: torch.Tensor, sampled: torch.Tensor, most: float) -> torch.Tensor:
    """(T,) weights of tokens that another sampler wrote: the policy's probability over the sampler's, at most `most`.

    Truncated importance sampling (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    Training"; TRL's `vllm_importance_sampling_mode` token_truncate).
    """
    return (logprobs - sampled).exp().clamp(max=most)


def mismatch(logprobs: torch.Tensor, sampled: torch.Tensor, most: float) -> dict[str, float]:
    """How far the sampler of these tokens (T,) is from the policy: `mismatch` is the mean difference of the
    log-probabilities in nats, `importance` and `importance_max` are ratios of the probabilities, before they are
    truncated, and `importance_cut` is the share of those that are.
    """
    ratio = (logprobs - sampled).exp()
    return {
        "mismatch": (logprobs - sampled).abs().mean().item(),
        "importance": ratio.mean().item(),
        "importance_max": ratio.max().item(),
        "importance_cut": (ratio > most).float().mean().item(),
    }
