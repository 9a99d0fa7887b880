"""Log-probabilities of completion tokens from a packed row: logits of completion tokens only, a chunk at a time."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tasks.models.prefix import Packed

CHUNK = 2**22  # logits held at once: 16 MB in fp32


class _Chosen(torch.autograd.Function):
    """log softmax(logits)[target]: one exponential, kept for the gradient (one-hot - probabilities)."""

    @staticmethod
    def forward(ctx, logits, targets):
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(-1, targets[:, None])[:, 0]
        ctx.save_for_backward(logprobs.exp_(), targets)
        return chosen

    @staticmethod
    def backward(ctx, gradient):
        probabilities, targets = ctx.saved_tensors
        out = probabilities * -gradient[:, None]
        out.scatter_add_(-1, targets[:, None], gradient[:, None])
        return out, None


def hidden_states(model: PreTrainedModel, row: Packed, features: dict) -> torch.Tensor:
    """(T, width): for each completion token, the last hidden state that predicts it. `model` is without PEFT.

    The G first tokens of a group share the last state of their prefix. `features` is of `Pictures.of`.
    """
    output = model.model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        attention_mask=row.layout.completion_mask[:1, :, :1, :1],  # 4-D: passes through, `layout` says it all
        use_cache=False,
        layout=row.layout,
        **features,
    )
    return output.last_hidden_state[0].index_select(0, row.source)


def token_logprobs(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """(T,) fp32: log-probabilities of `targets` (T,) at `temperature`, over the whole vocabulary."""

    def chunk(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return _Chosen.apply(head(hidden).float() / temperature, targets)

    rows = max(1, CHUNK // head.weight.shape[0])
    if len(targets) <= rows:
        return chunk(hidden, targets)
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])


@torch.no_grad()
def token_entropy(head: nn.Module, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
    """(T,) fp32: entropy in nats of the distribution at `temperature` that each hidden state (T, width) gives."""
    parts = []
    for part in hidden.split(max(1, CHUNK // head.weight.shape[0])):
        logprobs = (head(part).float() / temperature).log_softmax(-1)
        parts.append(-(logprobs.exp() * logprobs).sum(-1))
    return torch.cat(parts)
