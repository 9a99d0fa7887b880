"""Loading models and processors: a local folder, a hub id and a geometry go through the same few lines.

Safetensors only, and no code from the hub: `trust_remote_code` is off everywhere.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import logging

from tasks.models.geometry import build_model, build_processor, read_config, sees
from tasks.models.integrity import verify
from tasks.models.precision import compute_as
from tasks.models.processors import PROCESSORS
from tasks.params import Model

ADAPTER = "adapter_config.json"
UNDER = "under"  # in an adapter's folder: the adapter of the model that it was trained on
PADDING = "<|finetune_right_pad_id|>"  # Llama 3's; its tokenizer names none

if not sys.stderr.isatty():
    logging.disable_progress_bar()  # quiet in logs


def tokenizer_of(processor: ProcessorMixin | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The processor of a text model is its tokenizer."""
    return getattr(processor, "tokenizer", processor)


def load_config(model: Model, path: Path | str | None = None) -> PreTrainedConfig:
    """The shapes of the model in `path`, or of the base model; an adapter has those of the model under it."""
    if path is not None and (Path(path) / ADAPTER).is_file():
        return load_config(model, _under(model, Path(path)))
    if path is None and model.geometry:
        return read_config(model.path)
    source, revision = _source(model, path)
    return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)


def load_processor(model: Model, path: Path | str | None = None) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The processor (of a text model: the tokenizer) in `path` (a trained folder), or the base model's; left-padded, as
    generation needs it.
    """
    config = load_config(model, path)
    processor = build_processor(config) if path is None and model.geometry else _stored_processor(model, path, config)
    _set_sizes(model, processor, config)
    tokenizer = tokenizer_of(processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PADDING if PADDING in tokenizer.get_vocab() else tokenizer.eos_token
    return processor


def load_model(model: Model, path: Path | str | None = None, quantize: bool = False) -> PreTrainedModel:
    """The weights in `path` (a trained folder; an adapter is merged), or the base model's, in `model.dtype`; to be
    trained on in 4 bits if `quantize`. It remembers `model.compute`. On the GPU where there is one. A model of pictures
    and text, or of text alone. ValueError where a file of a trained folder is not the one that was written.
    """
    if path is not None and Path(path).is_dir():
        verify(Path(path))
    if path is not None and (Path(path) / ADAPTER).is_file():
        under = load_model(model, _under(model, Path(path)), quantize)
        return PeftModel.from_pretrained(under, path).merge_and_unload()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = load_config(model, path)
    if path is None and model.geometry:
        if quantize:
            raise ValueError(f"model.geometry {model.path}: random weights are not quantized; lora.quantize: null")
        build_processor(config)  # which sets the token ids in `config`
        built = build_model(config, getattr(torch, model.dtype), device)
        built.set_attn_implementation(model.attention)
        return compute_as(model, built)
    source, revision = _source(model, path)
    loaded = (AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM).from_pretrained(
        source, revision=revision, dtype=model.dtype, attn_implementation=model.attention, use_safetensors=True,
        trust_remote_code=False, **(_in_four_bits(model, device) if quantize else {}),
    )  # fmt: skip
    return compute_as(model, loaded if quantize else loaded.to(device))


def _source(model: Model, path: Path | str | None) -> tuple[str, str | None]:
    """(folder or hub id, revision) of a trained folder `path`, or of the base model."""
    return (str(path), None) if path is not None else (model.path, model.revision)


def _under(model: Model, path: Path) -> Path | str | None:
    """What the adapter in `path` was trained on: an adapter kept beside it, a trained folder, or the base model."""
    if (path / UNDER).is_dir():
        return path / UNDER
    name = json.loads((path / ADAPTER).read_text())["base_model_name_or_path"]
    return None if not name or name == model.path else name


def _stored_processor(model: Model, path: Path | str | None, config: PreTrainedConfig):
    source, revision = _source(model, path)
    kind = PROCESSORS.get(config.model_type, AutoProcessor if sees(config) else AutoTokenizer)
    return kind.from_pretrained(source, revision=revision, trust_remote_code=False)


def _set_sizes(model: Model, processor: ProcessorMixin | PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """The fewest and the most pixels of a picture, of the families whose pictures keep their own size."""
    given = {"shortest_edge": model.min_pixels, "longest_edge": model.max_pixels}
    given = {name: value for name, value in given.items() if value is not None}
    if not given or not sees(config):
        return
    images = processor.image_processor
    if not hasattr(images, "merge_size"):
        raise ValueError(
            f"model.min_pixels, model.max_pixels: pictures of {config.model_type} ({model.path}) are cut into tiles of "
            "one size, not scaled to a number of pixels; give null for both"
        )
    images.size = {"shortest_edge": images.size["shortest_edge"], "longest_edge": images.size["longest_edge"]} | given


def _in_four_bits(model: Model, device: str) -> dict:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("model.lora.quantize nf4 needs bitsandbytes: pip install bitsandbytes, or give quantize: null")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, model.computing),
    )  # fmt: skip
    return {"quantization_config": config, "device_map": device}
