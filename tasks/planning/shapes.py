"""Sizes of a model without its weights: built on torch's device `meta`, parameters are counted, never estimated."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from peft import PeftModel
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.models.adapters import VISION, learning, without_adapter
from tasks.models.geometry import FOLDER, build_model, read_config, sees
from tasks.models.loading import load_config, load_processor
from tasks.params import Model

MERGING = ("merger", "connector", "multi_modal_projector")  # of the tower: what works on tokens, not on patches


@dataclass(frozen=True)
class Weights:
    """Parameters of a part (in `linear`, of its matrix products): `frozen` ones, and those that learn."""

    frozen: int = 0
    trained: int = 0

    @property
    def all(self) -> int:
        return self.frozen + self.trained

    def more(self, count: int, learns: bool) -> "Weights":
        return Weights(self.frozen + count * (not learns), self.trained + count * learns)


@dataclass(frozen=True)
class Picture:
    """One picture: the `patches` that the tower reads, of which those of a `window` (a tile) see each other in the
    layers that do not see the whole picture; as `merged` they enter the prompt, where the picture takes `tokens`.
    """

    patches: int = 0
    window: int = 0
    merged: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Shapes:
    """What costs depend on. `linear` are the parts language, head, tower (on patches) and merger (on tokens)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int  # x width of one: the width of the queries
    kv: int  # the same of keys, and of values
    vocabulary: int
    tower_layers: int
    tower_hidden: int
    tower_full_layers: int  # whose attention goes over the whole picture
    total: int  # parameters of the base model
    trained: int
    adapter: bool
    decoder: Weights  # of the decoder layers, norms included: what FSDP shards
    linear: dict[str, Weights]


def config_of(model: Model) -> PreTrainedConfig:
    """The shipped shapes of a hub id, where there are some; else those of the folder, or of the hub."""
    return read_config(model.path) if _shipped(model) else load_config(model)


def _shipped(model: Model) -> bool:
    return (FOLDER / f"{model.path.rsplit('/', maxsplit=1)[-1]}.json").is_file()


def shapes(model: Model) -> Shapes:
    """Of the section `model`. What is quantized is counted as it was before."""
    return _shapes(model.model_dump_json())


@lru_cache
def _shapes(section: str) -> Shapes:
    model = Model.model_validate_json(section)
    config = config_of(model)
    built = build_model(config, torch.float32, "meta")
    total = built.num_parameters()
    lora = model.lora and model.lora.model_copy(update={"quantize": None, "dora": False})
    learner = learning(built, model.model_copy(update={"lora": lora}))
    layers = without_adapter(learner).get_decoder().layers
    magnitudes = bool(model.lora and model.lora.dora)
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tower = getattr(config, "vision_config", None)
    depth = getattr(tower, "depth", None) or getattr(tower, "num_hidden_layers", 0)
    return Shapes(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads * width,
        kv=text.num_key_value_heads * width,
        vocabulary=text.vocab_size,
        tower_layers=depth,
        tower_hidden=getattr(tower, "embed_dim", None) or getattr(tower, "hidden_size", 0),
        tower_full_layers=_full_layers(config, depth),
        total=total,
        trained=_counted(learner, magnitudes).trained,
        adapter=isinstance(learner, PeftModel),
        decoder=_counted(layers, magnitudes),
        linear=_by_part(learner),
    )


def _counted(module: nn.Module, magnitudes: bool) -> Weights:
    """All parameters; with `magnitudes`, those that DoRA adds to each adapted product too."""
    found = Weights()
    for parameter in module.parameters():
        found = found.more(parameter.numel(), parameter.requires_grad)
    if magnitudes:
        found = found.more(sum(part.out_features for part in module.modules() if hasattr(part, "lora_A")), True)
    return found


def _full_layers(config: PreTrainedConfig, depth: int) -> int:
    """Tower layers whose attention goes over a whole picture: some of Qwen2.5-VL's, none where it is cut into tiles."""
    if hasattr(config, "scale_factor"):
        return 0
    chosen = getattr(getattr(config, "vision_config", None), "fullatt_block_indexes", None)
    return depth if chosen is None else len(chosen)


def _by_part(model: PreTrainedModel | PeftModel) -> dict[str, Weights]:
    found = dict.fromkeys(("language", "head", "tower", "merger"), Weights())
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            continue
        words = name.split(".")
        part = "language"
        if "lm_head" in words:
            part = "head"
        elif set(words) & set(VISION):
            part = "merger" if any(word.startswith(MERGING) or "merger" in word for word in words) else "tower"
        found[part] = found[part].more(module.weight.numel(), module.weight.requires_grad)
    return found


def picture(model: Model, size: tuple[int, int]) -> Picture:
    """What a picture of `size` (width, height) becomes; nothing for a model of text alone."""
    config = config_of(model)
    if not sees(config):
        return Picture()
    processor = load_processor(model.model_copy(update={"geometry": _shipped(model)}))
    ask = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ""}]}], tokenize=False
    )
    encoded = processor(text=[ask], images=[[Image.new("RGB", size)]], return_tensors="pt")
    vision = config.vision_config
    if "image_grid_thw" in encoded:
        patches = int(encoded["image_grid_thw"].prod())
        window, merged = (getattr(vision, "window_size", 0) // vision.patch_size) ** 2, vision.spatial_merge_size**2
        return Picture(patches, window, patches // merged, patches // merged)
    tile = (vision.image_size // vision.patch_size) ** 2
    patches = encoded["pixel_values"].shape[1] * tile
    return Picture(patches, tile, patches // config.scale_factor**2, encoded["input_ids"].shape[1])
