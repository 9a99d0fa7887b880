"""Rollout: each prompt is read once, and its keys and values serve all of its G completions while these are sampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from tasks.models import processes
from tasks.models.prefix import Shared
from tasks.models.prompts import Pictures, Prompt

COMPACT_AT = 0.1  # share of rows that has ended before the others move together


@dataclass(frozen=True)
class Sampling:
    """`forbidden` tokens are never sampled; a temperature of 0 takes the most probable token."""

    num_generations: int
    max_length: int
    temperature: float
    eos: int
    forbidden: tuple[int, ...]


@dataclass(frozen=True)
class Rollout:
    """B * G completions, those of a prompt one after the other. Their tokens include the end of turn."""

    completions: list[torch.Tensor]  # each (L,)
    logprobs: list[torch.Tensor]  # each (L,), at the sampling temperature over the whole vocabulary
    entropy: list[torch.Tensor]  # each (L,), of the distribution that each token is from
    ended: torch.Tensor  # (B * G,) with an end of turn; the others were cut off
    sampled: list[torch.Tensor] | None = None  # each (L,), log-probabilities of another sampler, which chose the tokens


class _Room(DynamicLayer):
    """A cache layer with room for the tokens to come: each is written in place, nothing is copied."""

    def __init__(self, like: torch.Tensor, num: int, room: int):
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.dtype, like.device, True
        self._buffers = [like.new_empty(num, like.shape[1], room, like.shape[3]) for _ in range(2)]
        self._length = 0

    def update(self, key_states, value_states, *args, **kwargs):
        end = self._length + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        """Only these rows of the batch."""
        self._buffers = [buffer[rows] for buffer in self._buffers]


def _left_padded(prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids (B, P), mask (B, P), positions (axes, B, P)."""
    width = max(len(p.input_ids) for p in prompts)
    ids = prompts[0].input_ids.new_zeros(len(prompts), width)
    mask = ids.clone()
    positions = ids.new_zeros(prompts[0].positions.shape[0], *ids.shape)
    for row, prompt in enumerate(prompts):
        start = width - len(prompt.input_ids)
        ids[row, start:], mask[row, start:], positions[:, row, start:] = prompt.input_ids, 1, prompt.positions
    return ids, mask, positions


def _model_positions(positions: torch.Tensor) -> torch.Tensor:
    """Text models take (B, T) where others take (3, B, T)."""
    return positions[0] if positions.shape[0] == 1 else positions


class _Sampler:
    """Draws tokens by inverting the cumulative distribution at numbers drawn in advance, one for every row and step:
    a row's tokens depend on the generator and on its own logits, not on the other rows or on when they end, nor on
    which process has the row: all draw the numbers of all rows.
    """

    def __init__(self, sampling: Sampling, rows: int, generator: torch.Generator, device: torch.device):
        uniform = torch.rand(sampling.max_length, rows * processes.world(), generator=generator)
        self._uniform = uniform.split(rows, dim=1)[processes.rank()].to(device)
        self._forbidden = torch.tensor(sampling.forbidden, dtype=torch.long, device=device)
        self._temperature = sampling.temperature

    def draw(self, logits: torch.Tensor, step: int, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """tokens, log-probabilities and entropy (R,) from logits (R, V) of these `rows` of the batch."""
        logprobs = (logits.float() / (self._temperature or 1.0)).log_softmax(-1)
        probabilities = logprobs.exp()
        entropy = -(probabilities * logprobs).sum(-1)
        probabilities.index_fill_(1, self._forbidden, 0.0)
        if self._temperature:
            cumulative = probabilities.cumsum(-1)
            # strictly below the total, so that the token found has a probability above 0
            drawn = self._uniform[step, rows, None] * cumulative[:, -1:] * (1 - 2**-20)
            tokens = torch.searchsorted(cumulative, drawn, right=True)
        else:
            tokens = probabilities.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(1, tokens)[:, 0], entropy


class _Decoding:
    """Rows that are being completed: their cache, the place of their last token, and which of the batch they are."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Prompt], pictures: Pictures, repeats: int, room: int):
        ids, mask, positions = _left_padded(prompts)
        padded = not bool(mask.all())
        cache = DynamicCache(config=model.config.get_text_config())
        output = model.model(
            input_ids=ids,
            attention_mask=mask if padded else None,
            position_ids=_model_positions(positions),
            past_key_values=cache,
            use_cache=True,
            **pictures.of(prompts),
        )
        num = len(prompts) * repeats
        self._model, self._axes = model.model, positions.shape[0]
        values = [layer.values for layer in cache.layers]
        # in mixed precision the rotation makes float32 of keys, which are multiplied in half all the same
        keys = [layer.keys.to(value.dtype) for layer, value in zip(cache.layers, values, strict=True)]
        blocked = None
        if padded:
            blocked = torch.zeros(mask.shape, dtype=keys[0].dtype, device=mask.device)
            blocked = blocked.masked_fill(mask == 0, float("-inf"))[:, None, None, None]
        self._shared = Shared(keys, values, blocked, num)
        self._cache = Cache(layers=[_Room(layer, num, room) for layer in keys])
        self._position = positions.amax((0, 2)).repeat_interleave(repeats)  # (R,)
        self._mask = output.last_hidden_state.new_zeros(1, 1, 1, 1)  # 4-D: passes through, `layout` says it all
        self.hidden = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)  # (R, width) predicts the next
        self.rows = torch.arange(num, device=ids.device)  # of the batch
        self.going = torch.ones_like(self.rows, dtype=torch.bool)  # without an end of turn so far

    def advance(self, tokens: torch.Tensor) -> None:
        """Read the next token (R,) of each row."""
        if self.going.sum() <= (1 - COMPACT_AT) * len(self.rows):
            keep = self.going.nonzero()[:, 0]
            tokens, self.rows, self.going, self._position = (
                x[keep] for x in (tokens, self.rows, self.going, self._position)
            )
            self._shared.places = self.rows
            for layer in self._cache.layers:
                layer.keep(keep)
        self._position = self._position + 1
        self.hidden = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=_model_positions(self._position[None, :, None].expand(self._axes, -1, -1)),
            past_key_values=self._cache,
            use_cache=True,
            layout=self._shared,
        ).last_hidden_state[:, -1]


@torch.no_grad()
def roll_out(
    model: PreTrainedModel,
    head: nn.Module,
    prompts: Sequence[Prompt],
    pictures: Pictures,
    sampling: Sampling,
    generator: torch.Generator,
) -> Rollout:
    """`num_generations` completions of each prompt. `model` is without PEFT, in evaluation mode, and has had
    `use_prefix_attention`; `pictures` holds the prompts' features; `generator` is on the CPU, and the same in every
    process, of which each has as many prompts.
    """
    batch = _Decoding(model, prompts, pictures, sampling.num_generations, sampling.max_length)
    num, device = len(batch.rows), batch.rows.device
    sampler = _Sampler(sampling, num, generator, device)
    tokens = torch.full((num, sampling.max_length), sampling.eos, device=device)
    logprobs, entropy = (torch.zeros(num, sampling.max_length, device=device) for _ in range(2))
    length = torch.full((num,), sampling.max_length, device=device)
    for step in range(sampling.max_length):
        drawn = sampler.draw(head(batch.hidden), step, batch.rows)
        for kept, new in zip((tokens, logprobs, entropy), drawn, strict=True):
            kept[batch.rows, step] = new
        ends = batch.going & (drawn[0] == sampling.eos)
        length[batch.rows[ends]] = step + 1
        batch.going &= ~ends
        if not batch.going.any():
            break
        if step < sampling.max_length - 1:
            batch.advance(drawn[0])
    ended = tokens.gather(1, length[:, None] - 1)[:, 0] == sampling.eos
    cut = [[kept[row, :n] for row, n in enumerate(length.tolist())] for kept in (tokens, logprobs, entropy)]
    return Rollout(*cut, ended)
