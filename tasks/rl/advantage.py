"""Advantages: normalised in a group (GRPO), generalised advantage estimation and whitening (PPO)."""

import torch

EPSILON = 1e-4  # added to the spread, as TRL does; a spread below it says nothing about which completion is better


def group_advantages(rewards: torch.Tensor, scale: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, G) advantages and (B,) whether a group has no spread, from rewards (B, G) with NaN where one is invalid.

    reward - mean of the group, by its standard deviation if `scale` (DeepSeekMath, arXiv 2402.03300, 4.1.2; without:
    Dr. GRPO, 2503.20783). Invalid rewards get 0 and do not enter the mean. Groups without spread get exactly 0.
    """
    valid = rewards.isfinite()
    num = valid.sum(1, keepdim=True)
    kept = rewards.where(valid, 0.0)
    centred = (kept - kept.sum(1, keepdim=True) / num.clamp(min=1)).where(valid, 0.0)
    spread = (centred.square().sum(1, keepdim=True) / (num - 1).clamp(min=1)).sqrt()
    flat = spread < EPSILON
    advantages = centred / (spread + EPSILON) if scale else centred
    return advantages.masked_fill(flat, 0.0), flat[:, 0]


def gae(rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    """(L,) advantages of one completion from rewards (L,) and values (L,); the value after its last token is 0.

    A_t = sum over l of (gamma lam)^l (r_{t+l} + gamma V_{t+l+1} - V_{t+l}) (arXiv 1506.02438, equation 16).
    """
    deltas = rewards + gamma * torch.cat([values[1:], values.new_zeros(1)]) - values
    advantages, running = [], 0.0
    for delta in reversed(deltas.tolist()):
        running = delta + gamma * lam * running
        advantages.append(running)
    return deltas.new_tensor(advantages[::-1])


def whiten(values: torch.Tensor) -> torch.Tensor:
    """(T,) to mean 0 and variance 1 over all tokens."""
    return (values - values.mean()) * torch.rsqrt(values.var(correction=0) + 1e-8)
