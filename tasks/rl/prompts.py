"""Prompts as the models take them: token ids, M-RoPE positions, and pictures encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prompt:
    """One prompt without padding. `picture` names its picture: prompts with the same name share the features."""

    input_ids: torch.Tensor  # (P,)
    positions: torch.Tensor  # (3, P), or (1, P) for a text model
    picture: str | None = None
    pixel_values: torch.Tensor | None = None  # (patches, channels x patch pixels)
    grid: torch.Tensor | None = None  # (1, 3) time, height, width in patches


def make_prompt(model: PreTrainedModel, encoded: dict[str, torch.Tensor], picture: str | None = None) -> Prompt:
    """From a processor's or tokenizer's output for ONE prompt, (1, P) without padding. `model` is without PEFT."""
    device = model.device
    ids = encoded["input_ids"]
    if "pixel_values" not in encoded:
        axes = 3 if hasattr(model.model, "get_rope_index") else 1  # M-RoPE counts words alike on all three
        return Prompt(ids[0].to(device), torch.arange(ids.shape[1], device=device).expand(axes, -1))
    positions, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=encoded["mm_token_type_ids"], image_grid_thw=encoded["image_grid_thw"]
    )
    return Prompt(
        ids[0].to(device),
        positions[:, 0].to(device),
        picture,
        encoded["pixel_values"].to(device),
        encoded["image_grid_thw"].to(device),
    )


class Pictures:
    """The features of each distinct picture, encoded once however many prompts, completions and micro-batches use them.

    `encode` before use; after the losses of these features went backward, `backward` sends what they gathered through
    the vision tower, once. While the tower is frozen, features stay for the rest of the run.
    """

    def __init__(self, model: PreTrainedModel, frozen: bool | None = None):
        tower = getattr(model.model, "visual", None)
        self._inner = model.model
        self._frozen = (
            frozen if frozen is not None else tower is None or not any(p.requires_grad for p in tower.parameters())
        )
        self._features: dict[str, list[torch.Tensor]] = {}  # the last layer's, then each deepstack layer's
        self._outputs: list[torch.Tensor] = []
        self._leaves: list[torch.Tensor] = []

    def encode(self, prompts: Sequence[Prompt]) -> None:
        """Make the features of these prompts' pictures current; call it again after every change of the weights."""
        if not self._frozen:
            self._features, self._outputs, self._leaves = {}, [], []
        new = {p.picture: p for p in prompts if p.picture is not None and p.picture not in self._features}
        if not new:
            return
        with torch.set_grad_enabled(not self._frozen):
            pixels, grids = (torch.cat([getattr(p, name) for p in new.values()]) for name in ("pixel_values", "grid"))
            output = self._inner.get_image_features(pixels, grids, return_dict=True)
            layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
        for number, name in enumerate(new):
            features = [layer[number] for layer in layers]
            leaves = [f.detach().requires_grad_(not self._frozen) for f in features]
            self._features[name] = leaves
            self._outputs += features
            self._leaves += leaves

    def of(self, prompts: Sequence[Prompt]) -> dict[str, dict]:
        """Keyword arguments that give the model the features of these prompts' pictures, in their order."""
        features = [self._features[p.picture] for p in prompts if p.picture is not None]
        if not features:
            return {}
        pooled, *deepstack = (list(layer) for layer in zip(*features, strict=True))
        return {"mm_encoder_outputs": {"image": SimpleNamespace(pooler_output=pooled, deepstack_features=deepstack)}}

    def backward(self) -> None:
        """The gradient of all losses so far, through the vision tower."""
        if self._frozen:
            return
        pairs = zip(self._outputs, self._leaves, strict=True)
        used = [(output, leaf.grad) for output, leaf in pairs if leaf.grad is not None]
        if used:
            torch.autograd.backward(*map(list, zip(*used, strict=True)))
        self._outputs, self._leaves = [], []
