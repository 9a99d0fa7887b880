"""Loading models and processors: a local folder or a hub id goes through the same few lines.

The Qwen-VL processors ask for a video processor, which cannot be built without torchvision. Pictures need none, so
ours are the stock classes without that part, with torchvision or not.
"""

import sys
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.utils import logging

from tasks.params import Model

if not sys.stderr.isatty():
    logging.disable_progress_bar()  # quiet in logs


def without_video(base: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """`base` with an image processor and a tokenizer only. It keeps its name: saved folders name the stock class."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        base.__init__(self, image_processor, tokenizer, chat_template=chat_template, **kwargs)

    # transformers reads the parts of a processor off the signature of its __init__
    return type(base.__name__, (base,), {"__init__": __init__})


PROCESSORS = {
    "qwen2_vl": without_video(Qwen2VLProcessor),
    "qwen2_5_vl": without_video(Qwen2_5_VLProcessor),
    "qwen3_vl": without_video(Qwen3VLProcessor),
}


def _source(model: Model, path: Path | str | None) -> tuple[str, str | None]:
    """(folder or hub id, revision) of a trained folder `path`, or of the base model."""
    return (str(path), None) if path is not None else (model.path, model.revision)


def _sees(config: PreTrainedConfig) -> bool:
    """Whether a model takes pictures, or text alone."""
    return type(config) in AutoModelForImageTextToText._model_mapping


def tokenizer_of(processor: ProcessorMixin | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The processor of a text model is its tokenizer."""
    return getattr(processor, "tokenizer", processor)


def load_processor(model: Model, path: Path | str | None = None) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The processor (of a text model: the tokenizer) in `path` (a trained folder), or the base model's; left-padded, as
    generation needs it.
    """
    source, revision = _source(model, path)
    config = AutoConfig.from_pretrained(source, revision=revision)
    other = AutoProcessor if _sees(config) else AutoTokenizer
    sizes = {"min_pixels": model.min_pixels, "max_pixels": model.max_pixels}
    sizes = {key: value for key, value in sizes.items() if value is not None}
    processor = PROCESSORS.get(config.model_type, other).from_pretrained(source, revision=revision, **sizes)
    tokenizer_of(processor).padding_side = "left"
    return processor


def load_model(model: Model, path: Path | str | None = None) -> PreTrainedModel:
    """The weights in `path` (a trained folder), or the base model's, in `model.dtype`; safetensors only. On the GPU
    where there is one. A model of pictures and text, or of text alone.
    """
    source, revision = _source(model, path)
    sees = _sees(AutoConfig.from_pretrained(source, revision=revision))
    loaded = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(
        source, revision=revision, dtype=model.dtype, use_safetensors=True, trust_remote_code=False
    )
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu")
