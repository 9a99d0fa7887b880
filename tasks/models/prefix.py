"""Shared prefixes: each prompt is computed once for all of its completions, in the update and while decoding.

Update: one packed row [prefix 1, completions of 1, prefix 2, ...] without padding, so that linear layers, norms and the
vocabulary run over real tokens only. Attention alone needs structure: a completion sees its prefix and itself. The
dense mask of such a row costs the square of its length; `attention` (registered with transformers as `kshot_prefix`,
so stock models take it) works on blocks instead: (B, P) prefixes, and (R, C) completions over P + C keys. Positions of
every completion start where its prefix ends, on all axes of M-RoPE.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "kshot_prefix"


@dataclass(frozen=True)
class Layout:
    """Where the N tokens of a packed row stand in blocks of B x P prefix cells and R x C completion cells."""

    cells: torch.Tensor  # (B*P + R*C,) the token of every cell; an empty cell repeats token 0
    tokens: torch.Tensor  # (N,) the cell of every token
    owner: torch.Tensor  # (R,) the prefix of every completion
    prefix_mask: torch.Tensor  # (B, 1, P, P), 0 or -inf
    completion_mask: torch.Tensor  # (R, 1, C, P + C), 0 or -inf


@dataclass
class Shared:
    """Decoding: R rows, each of them one of the G completions of one of B prompts whose keys and values stay shared."""

    keys: list[torch.Tensor]  # of each layer (B, K, P, D)
    values: list[torch.Tensor]
    blocked: torch.Tensor | None  # (B, 1, 1, 1, P): -inf at padding; None where no prompt is shorter than another
    num: int  # B * G
    places: torch.Tensor | None = None  # (R,) of each row among the B * G; None: all are there

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """(R, K, n, X) -> (B * K, G * n, X), zeros for a row that is not there."""
        if self.places is not None:
            rows = rows.new_zeros(self.num, *rows.shape[1:]).index_copy_(0, self.places, rows)
        batch = self.keys[0].shape[0]
        rows = rows.view(batch, -1, *rows.shape[1:]).transpose(1, 2)
        return rows.reshape(batch * rows.shape[1], -1, rows.shape[-1])

    def collect(self, blocks: torch.Tensor, heads: int) -> torch.Tensor:
        """(B * K, G * n, X) -> (R, K, n, X); `heads` is K."""
        batch = self.keys[0].shape[0]
        blocks = blocks.view(batch, heads, self.num // batch, -1, blocks.shape[-1]).transpose(1, 2)
        rows = blocks.reshape(self.num, heads, -1, blocks.shape[-1])
        return rows if self.places is None else rows[self.places]


@dataclass(frozen=True)
class Packed:
    """A packed row, and for each of its T completion tokens where its logits come from.

    The last token of a completion predicts nothing, so it is not in the row.
    """

    input_ids: torch.Tensor  # (1, N)
    position_ids: torch.Tensor  # (axes, 1, N), or (1, N) for a text model
    source: torch.Tensor  # (T,) the token of the row whose hidden state predicts each completion token
    targets: torch.Tensor  # (T,) the completion tokens
    layout: Layout


def _self_only(allowed: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Empty queries see themselves alone: no NaN, and what flows back through them reaches empty cells only."""
    diagonal = torch.eye(valid.shape[1], allowed.shape[2], dtype=torch.bool, device=valid.device)
    diagonal = diagonal.roll(allowed.shape[2] - valid.shape[1], dims=1)
    return torch.where(valid[:, :, None], allowed, diagonal)


def _mask(prefix_lengths: torch.Tensor | None, lengths: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(R, 1, C, P + C): causal among `lengths` own tokens, after as many tokens of the prefix as each row has."""
    device, width = lengths.device, max(1, int(lengths.max()))
    own = torch.arange(width, device=device)
    valid = own < lengths[:, None]
    allowed = (own[:, None] >= own).expand(len(lengths), -1, -1)
    if prefix_lengths is not None:
        before = torch.arange(int(prefix_lengths.max()), device=device) < prefix_lengths[:, None]
        allowed = torch.cat([before[:, None].expand(-1, width, -1), allowed], dim=2)
    allowed = _self_only(allowed, valid)
    return torch.zeros((), dtype=dtype, device=device).where(allowed, float("-inf"))[:, None]


def _layout(starts: Sequence[list[int]], lengths: Sequence[list[int]], owner: list[int], dtype, device) -> Layout:
    """From the start and length in the row of every prefix (first) and every completion (second)."""
    cells, masks = [], []
    tokens = torch.empty(sum(map(sum, lengths)), dtype=torch.long)
    offset = 0
    for start, length in zip(starts, lengths, strict=True):
        start, length = torch.tensor(start), torch.tensor(length)
        own = torch.arange(max(1, int(length.max())))
        valid = own < length[:, None]
        at = start[:, None] + own
        tokens[at[valid]] = offset + valid.flatten().nonzero()[:, 0]
        cells.append(at.where(valid, 0).flatten())
        offset += valid.numel()
    prefix_lengths, owner = torch.tensor(lengths[0]), torch.tensor(owner)
    # the prefix block of every completion is as wide as the widest prefix of the row
    reach = torch.cat([prefix_lengths[owner], prefix_lengths.max()[None]])
    masks = [_mask(None, prefix_lengths, dtype), _mask(reach, torch.tensor([*lengths[1], 0]), dtype)[:-1]]
    return Layout(*(part.to(device) for part in (torch.cat(cells), tokens, owner, *masks)))


def pack(
    prefixes: Sequence[torch.Tensor],
    positions: Sequence[torch.Tensor],
    completions: Sequence[Sequence[torch.Tensor]],
    dtype: torch.dtype,
) -> Packed:
    """Prefixes (P,), their positions (axes, P), and the completions (L,) of each, L >= 1 and of any lengths.

    `dtype` is that of the attention scores' mask: what is computed in.
    """
    device, axes = prefixes[0].device, positions[0].shape[0]
    ids, places, source = [], [], []
    starts, lengths, owner = ([], []), ([], []), []
    end = 0
    for number, (prefix, place, group) in enumerate(zip(prefixes, positions, completions, strict=True)):
        ids.append(prefix)
        places.append(place)
        starts[0].append(end)
        lengths[0].append(len(prefix))
        end += len(prefix)
        last, after = end - 1, int(place.max()) + 1
        for completion in group:
            seen = len(completion) - 1
            ids.append(completion[:-1])
            places.append(torch.arange(after, after + seen, device=device).expand(axes, -1))
            source += [last, *range(end, end + seen)]
            starts[1].append(end)
            lengths[1].append(seen)
            owner.append(number)
            end += seen
    position_ids = torch.cat(places, dim=1)
    return Packed(
        torch.cat(ids)[None],
        position_ids if axes == 1 else position_ids[:, None],
        torch.tensor(source, device=device),
        torch.cat([completion for group in completions for completion in group]),
        _layout(starts, lengths, owner, dtype, device),
    )


class _Reorder(torch.autograd.Function):
    """x[there] (dim 0), its gradient by `back`: a gather both ways, where autograd's own would add row by row."""

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.back = back
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.index_select(0, ctx.back), None, None


def _sdpa(query, key, value, mask, scaling, dropout):
    """(R, C, H, D) over (R, S, K, D) with K | H -> (R, C, H, D)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    grouped = query.device.type == "cpu"  # CUDA's kernels take no groups beside a mask
    if not grouped:
        key, value = (repeat_kv(x, query.shape[1] // x.shape[1]) for x in (key, value))
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, dropout_p=dropout, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _decode(module, query, key, value, shared: Shared, scaling: float) -> torch.Tensor:
    """One query a row (R, H, 1, D) over its prompt's keys and its own (R, K, T, D) -> (R, 1, H, D).

    A prompt's keys are read once for all of its completions, not once for each.
    """
    (num, heads, length, width), groups = key.shape, query.shape[1] // key.shape[1]
    query = (query * scaling).view(num, heads, groups, width)
    before_keys, before_values = (part[module.layer_idx].flatten(0, 1) for part in (shared.keys, shared.values))
    before = torch.bmm(shared.spread(query), before_keys.mT)
    if shared.blocked is not None:
        before = (before.view(len(shared.blocked), heads, 1, -1, before.shape[-1]) + shared.blocked).view_as(before)
    own = torch.bmm(query.reshape(-1, groups, width), key.flatten(0, 1).mT).view(num, heads, groups, length)
    scores = torch.cat([shared.collect(before, heads), own], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    before, own = weights.split([before_keys.shape[1], length], dim=-1)
    out = torch.bmm(own.reshape(-1, groups, length), value.flatten(0, 1)).view(num, heads, groups, width)
    out = out + shared.collect(torch.bmm(shared.spread(before), before_values), heads)
    return out.reshape(num, 1, -1, width)


def attention(module, query, key, value, attention_mask, layout: Layout | Shared | None = None, **kwargs):
    """Transformers' attention interface: query (1, H, N, D) -> (1, N, H, D) by `layout`; plain SDPA without one."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query, key = query.to(value.dtype), key.to(value.dtype)  # in mixed precision their rotation makes float32 of them
    if isinstance(layout, Shared):
        return _decode(module, query, key, value, layout, kwargs["scaling"]), None
    scaling, dropout = kwargs["scaling"], kwargs.get("dropout", 0.0)
    (num_prefixes, _, width, _), (num, _, length, _) = layout.prefix_mask.shape, layout.completion_mask.shape
    split = num_prefixes * width
    blocks = [_Reorder.apply(x[0].transpose(0, 1), layout.cells, layout.tokens) for x in (query, key, value)]
    prefix = [x[:split].view(num_prefixes, width, *x.shape[1:]) for x in blocks]
    own = [x[split:].view(num, length, *x.shape[1:]) for x in blocks]
    keys, values = (
        torch.cat([shared.index_select(0, layout.owner), alone], dim=1)
        for shared, alone in zip(prefix[1:], own[1:], strict=True)
    )
    heads = (
        _sdpa(*prefix, layout.prefix_mask, scaling, dropout).flatten(0, 1),
        _sdpa(own[0], keys, values, layout.completion_mask, scaling, dropout).flatten(0, 1),
    )
    return _Reorder.apply(torch.cat(heads), layout.tokens, layout.cells)[None], None


def use_prefix_attention(model: PreTrainedModel) -> None:
    """Make `model` take a `layout=`; without one it runs as before (scaled dot-product attention)."""
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


@contextmanager
def prefix_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` takes a `layout=`; then it has its own attention again."""
    own = model.config._attn_implementation
    use_prefix_attention(model)
    try:
        yield
    finally:
        if own != ATTENTION:
            model.set_attn_implementation(own)
