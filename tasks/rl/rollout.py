"""Rollout: each prompt is read once, its KV cache repeated for its G completions, which are sampled token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from tasks.rl.prompts import Pictures, Prompt

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
    """The completions of B prompts, (B * G,) of each, a prompt's one after the other. Tokens include the end of turn."""

    completions: list[torch.Tensor]  # each (L,)
    logprobs: list[torch.Tensor]  # each (L,), at the sampling temperature over the whole vocabulary
    entropy: list[torch.Tensor]  # each (L,), of the distribution that each token is from
    ended: torch.Tensor  # (B * G,) with an end of turn; the others were cut off


class _Room(DynamicLayer):
    """A cache layer with room for what is to come: a new token is written in place, nothing is copied."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, repeats: int, room: int):
        super().__init__()
        self._length = keys.shape[2]
        self._buffers = []
        for states in (keys, values):
            batch, heads, length, width = states.shape
            buffer = states.new_empty(batch * repeats, heads, length + room, width)
            buffer[:, :, :length] = states.repeat_interleave(repeats, dim=0)
            self._buffers.append(buffer)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)

    def update(self, key_states, value_states, *args, **kwargs):
        end = self._length + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self._show()
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        """Only these rows of the batch (in ascending order)."""
        for number, buffer in enumerate(self._buffers):
            self._buffers[number] = buffer[rows]
        self._show()


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
    a row's tokens depend on the generator and on its own logits, not on the other rows or on when they end.
    """

    def __init__(self, sampling: Sampling, rows: int, generator: torch.Generator, device: torch.device):
        self._uniform = torch.rand(sampling.max_length, rows, generator=generator).to(device)
        self._forbidden = torch.tensor(sampling.forbidden, dtype=torch.long, device=device)
        self._temperature = sampling.temperature

    def draw(self, logits: torch.Tensor, step: int, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """tokens, log-probabilities and entropy (R,) from logits (R, V) of these `rows` of the batch."""
        logprobs = (logits.float() / (self._temperature or 1.0)).log_softmax(-1)
        probabilities = logprobs.exp()
        entropy = -torch.linalg.vecdot(probabilities, logprobs)
        probabilities.index_fill_(1, self._forbidden, 0.0)
        if self._temperature:
            cumulative = probabilities.cumsum(-1)
            # strictly below the total, so that the token found has a probability above 0
            drawn = self._uniform[step, rows, None] * cumulative[:, -1:] * (1 - 2**-20)
            tokens = torch.searchsorted(cumulative, drawn, right=True)
        else:
            tokens = probabilities.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(1, tokens)[:, 0], entropy


@torch.no_grad()
def roll_out(
    model: PreTrainedModel,
    head: nn.Module,
    prompts: Sequence[Prompt],
    pictures: Pictures,
    sampling: Sampling,
    generator: torch.Generator,
) -> Rollout:
    """`num_generations` completions of each prompt. `model` is without PEFT, in evaluation mode; `pictures` holds the
    prompts' features; `generator` is on the CPU.
    """
    repeats, room = sampling.num_generations, sampling.max_length
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
    cache = Cache(layers=[_Room(layer.keys, layer.values, repeats, room) for layer in cache.layers])
    hidden = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)
    position = positions.amax((0, 2)).repeat_interleave(repeats)  # (R,) of the last token so far
    blocked = None
    if padded:
        blocked = hidden.new_zeros(len(position), 1, 1, ids.shape[1] + room)
        blocked[:, 0, 0, : ids.shape[1]].masked_fill_(mask.repeat_interleave(repeats, dim=0) == 0, float("-inf"))

    num = len(position)
    sampler = _Sampler(sampling, num, generator, ids.device)
    tokens = ids.new_full((num, room), sampling.eos)
    logprobs, entropy = hidden.new_zeros(num, room, dtype=torch.float32), hidden.new_zeros(num, room, dtype=torch.float32)
    length = ids.new_full((num,), room)
    rows = torch.arange(num, device=ids.device)  # the rows still in the batch
    going = torch.ones(num, dtype=torch.bool, device=ids.device)  # of `rows`: without an end of turn
    for step in range(room):
        drawn = sampler.draw(head(hidden), step, rows)
        for kept, new in zip((tokens, logprobs, entropy), drawn, strict=True):
            kept[rows, step] = new
        ends = going & (drawn[0] == sampling.eos)
        length[rows[ends]] = step + 1
        going &= ~ends
        left = int(going.sum())
        if left == 0 or step == room - 1:
            break
        token = drawn[0]
        if left <= (1 - COMPACT_AT) * len(rows):
            keep = going.nonzero()[:, 0]
            rows, position, token, going = rows[keep], position[keep], token[keep], going[keep]
            blocked = None if blocked is None else blocked[keep]
            for layer in cache.layers:
                layer.keep(keep)
        position = position + 1
        hidden = model.model(
            input_ids=token[:, None],
            attention_mask=None if blocked is None else blocked[..., : ids.shape[1] + step + 1],
            position_ids=_model_positions(position[None, :, None].expand(positions.shape[0], -1, -1)),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
    ended = tokens.gather(1, length[:, None] - 1)[:, 0] == sampling.eos
    cut = [[kept[row, :n] for row, n in enumerate(length.tolist())] for kept in (tokens, logprobs, entropy)]
    return Rollout(*cut, ended)
