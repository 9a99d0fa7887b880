"""Prompts as the models take them: token ids, positions, and pictures encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from transformers import PreTrainedModel

from tasks.models.adapters import vision_parts

# What a family's tower takes beside the pixels, and the dimension on which the pictures of several prompts are joined:
# Qwen-VL's patches (patches, values), SmolVLM's tiles (1, tiles, channels, height, width).
GRID, TILES = "image_grid_thw", "pixel_attention_mask"
KEPT = 256  # pictures whose features a frozen tower leaves in main memory


@dataclass(frozen=True)
class Prompt:
    """One prompt without padding. `picture` names its picture: prompts with the same name share the features. Its
    pixels stay in main memory until they are encoded.
    """

    input_ids: torch.Tensor  # (P,)
    positions: torch.Tensor  # (3, P), or (1, P) for a model without M-RoPE
    picture: str | None = None
    pixels: dict[str, torch.Tensor] = field(default_factory=dict)  # what `get_image_features` takes


def make_prompt(model: PreTrainedModel, encoded: dict[str, torch.Tensor], picture: str | None = None) -> Prompt:
    """From a processor's or tokenizer's output for ONE prompt, (1, P) without padding. `model` is without PEFT.

    ValueError for a family whose pictures come in a form that is not known here.
    """
    device = model.device
    ids = encoded["input_ids"]
    pixels = {name: encoded[name] for name in ("pixel_values", GRID, TILES) if name in encoded}
    if pixels and len(pixels) != 2:
        raise ValueError(
            f"{model.config.model_type}: its pictures come as {sorted(encoded)}, without {GRID} or {TILES}; the engine "
            "kshot knows Qwen-VL's and SmolVLM's: take rft.engine trl"
        )
    mrope = hasattr(model.model, "get_rope_index")
    if GRID in pixels and mrope:
        positions, _ = model.model.get_rope_index(
            ids, mm_token_type_ids=encoded["mm_token_type_ids"], image_grid_thw=encoded[GRID]
        )
        positions = positions[:, 0].to(device)
    else:  # words count alike on all three axes of M-RoPE
        positions = torch.arange(ids.shape[1], device=device).expand(3 if mrope else 1, -1)
    return Prompt(ids[0].to(device), positions, picture if pixels else None, pixels)


class Pictures:
    """The features of each distinct picture, encoded once however many prompts, completions and micro-batches use them.

    `encode` before use; after the losses of these features went backward, `backward` sends what they gathered through
    the vision tower, once. While the tower is frozen, the features of the last KEPT pictures wait in main memory.
    """

    def __init__(self, model: PreTrainedModel, frozen: bool | None = None):
        learns = any(p.requires_grad for part in vision_parts(model).values() for p in part.parameters())
        self._inner, self._frozen = model.model, not learns if frozen is None else frozen
        self._features: dict[str, list[torch.Tensor]] = {}  # the last layer's, then each deepstack layer's
        self._kept: dict[str, list[torch.Tensor]] = {}  # the same, on the CPU, the latest used last
        self._outputs: list[torch.Tensor] = []
        self._leaves: list[torch.Tensor] = []

    def encode(self, prompts: Sequence[Prompt]) -> None:
        """Make the features of these prompts' pictures current; call it again after every change of the weights."""
        self._features, self._outputs, self._leaves = {}, [], []
        shown = {p.picture: p for p in prompts if p.picture is not None}
        self._encode({name: p for name, p in shown.items() if name not in self._kept})
        for name in shown if self._frozen else ():
            kept = self._kept.pop(name, None) or [layer.cpu() for layer in self._features[name]]
            self._features.setdefault(name, [layer.to(self._inner.device) for layer in kept])
            self._kept[name] = kept
        for name in list(self._kept)[:-KEPT]:
            del self._kept[name]

    def _encode(self, new: dict[str, Prompt]) -> None:
        """Run the tower over the pictures of these prompts, by their names."""
        if not new:
            return
        joined = {name: x.to(self._inner.device) for name, x in _joined([p.pixels for p in new.values()]).items()}
        places = [int((p.input_ids == self._inner.config.image_token_id).sum()) for p in new.values()]
        with torch.set_grad_enabled(not self._frozen):
            output = self._inner.get_image_features(**joined, return_dict=True)
            layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
            split = [torch.cat(list(layer)).split(places) for layer in layers]
        for number, name in enumerate(new):
            features = [layer[number] for layer in split]
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


def _joined(pixels: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What the tower takes for the pictures of several prompts together."""
    return {name: torch.cat([each[name] for each in pixels], dim=int(TILES in pixels[0])) for name in pixels[0]}
