"""A policy that scores packed rows, its frozen reference, and groups of completions."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tasks.models.adapters import without_adapter
from tasks.models.precision import computing, precision
from tasks.models.prefix import Packed, pack
from tasks.models.prompts import Pictures, Prompt
from tasks.rl.logprobs import hidden_states, token_logprobs


@dataclass
class Group:
    """A prompt with its G completions. `tokens` holds named values (T,) of all their tokens, one completion after the
    other: old_logprobs, and what an algorithm adds.
    """

    prompt: Prompt
    completions: list[torch.Tensor]  # each (L,)
    tokens: dict[str, torch.Tensor]
    rewards: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (G,), NaN where invalid
    right: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (G,), of bool

    @property
    def lengths(self) -> torch.Tensor:
        return torch.tensor([len(completion) for completion in self.completions])

    @property
    def size(self) -> int:
        return len(self.prompt.input_ids) + sum(map(len, self.completions))


def set_tokens(groups: Sequence[Group], name: str, values: torch.Tensor) -> None:
    """Hand values (T,) of all groups' tokens to the groups."""
    sizes = [int(group.lengths.sum()) for group in groups]
    for group, part in zip(groups, values.split(sizes), strict=True):
        group.tokens[name] = part


def get_tokens(groups: Sequence[Group], name: str) -> torch.Tensor:
    return torch.cat([group.tokens[name] for group in groups])


def micro_batches(groups: Sequence[Group], budget: int) -> Iterator[list[Group]]:
    """Groups of like length together, at most `budget` tokens each where a group alone is not more."""
    batch: list[Group] = []
    for group in sorted(groups, key=lambda g: max(map(len, g.completions))):
        if batch and sum(g.size for g in batch) + group.size > budget:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


class Policy:
    """`model` (with PEFT or not; `base` is without) and the features of the pictures at hand."""

    def __init__(self, model: PreTrainedModel | PeftModel, temperature: float, frozen: bool | None = None):
        self.model = model
        self.base: PreTrainedModel = without_adapter(model)
        self.head = self.base.get_output_embeddings()
        self.pictures = Pictures(self.base, frozen)
        self.temperature = temperature

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed: that of the weights, or less (mixed precision)."""
        return computing(self.base)

    def precision(self) -> AbstractContextManager:
        return precision(self.base)

    def score(self, groups: Sequence[Group]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (T,) of the groups' tokens at the sampling temperature, and the hidden states (T, width)
        that they come from. The pictures must have been encoded.
        """
        prompts = [group.prompt for group in groups]
        row: Packed = pack(
            [p.input_ids for p in prompts],
            [p.positions for p in prompts],
            [group.completions for group in groups],
            self.dtype,
        )
        with self.precision():
            hidden = hidden_states(self.base, row, self.pictures.of(prompts))
            return token_logprobs(self.head, hidden, row.targets, self.temperature), hidden


class Reference:
    """The policy as it began: the adapter switched off where there is one, else a frozen copy."""

    def __init__(self, model: PreTrainedModel | PeftModel, temperature: float):
        self._off = model.disable_adapter if isinstance(model, PeftModel) else nullcontext
        if not isinstance(model, PeftModel):
            model = copy.deepcopy(model).eval().requires_grad_(False)
        self._policy = Policy(model, temperature, frozen=True)

    @torch.no_grad()
    def score(self, groups: Sequence[Group], budget: int) -> None:
        """Give every group its tokens' `ref_logprobs`."""
        with self._off():
            with self._policy.precision():
                self._policy.pictures.encode([group.prompt for group in groups])
            for batch in micro_batches(groups, budget):
                set_tokens(batch, "ref_logprobs", self._policy.score(batch)[0])
