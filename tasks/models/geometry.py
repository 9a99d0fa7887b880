"""Models of published shapes with random weights, for tests, for `python -m tasks.plan` and to try a GPU without a
download (`model.geometry: true`).

models/geometry/NAME.json holds hidden sizes, layers, heads and vocabulary of the hub's NAME; the number of parameters
is exactly the published one (tests/models/test_geometry.py). Its tokenizer cannot be shipped: the shipped model's
stands in, with the family's control tokens, in the lowest ids of the big vocabulary. So prompts are longer than with
the real tokenizer, pictures take as many tokens as they do there, and what such a model writes means nothing.
"""

import json
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tasks.models.processors import PROCESSORS

FOLDER = Path("models/geometry")
TOKENIZER = "models/tiny"
TILES = 4  # a side: SmolVLM cuts a picture of TILES x image_size into as many
SMOLVLM = {
    "image": "<image>",
    "fake": "<fake_token_around_image>",
    "global": "<global-img>",
    "end": "<end_of_utterance>",
}
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def sees(config: PreTrainedConfig) -> bool:
    """Whether a model takes pictures, or text alone."""
    return type(config) in AutoModelForImageTextToText._model_mapping


def read_config(path: str) -> PreTrainedConfig:
    """The shapes of the hub's `path`. ValueError names those that there are."""
    file = FOLDER / f"{path.rsplit('/', maxsplit=1)[-1]}.json"
    if not file.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
        raise ValueError(f"model.geometry: no {file}; there are {known}: take one of these as model.path")
    return AutoConfig.for_model(**json.loads(file.read_text()))


def build_tokenizer(config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The shipped model's tokenizer, with what the family's processor writes around pictures."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.model_max_length = config.get_text_config().max_position_embeddings
    if config.model_type == "smolvlm":
        places = [f"<row_{row}_col_{column}>" for row in range(1, TILES + 1) for column in range(1, TILES + 1)]
        tokenizer.add_tokens([*SMOLVLM.values(), *places], special_tokens=True)
        tokenizer.eos_token, tokenizer.chat_template = SMOLVLM["end"], SMOLVLM_TEMPLATE
    return tokenizer


def build_processor(config: PreTrainedConfig) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The family's processor of pictures; of a text model the tokenizer. Sets the token ids in `config` to its own."""
    tokenizer = build_tokenizer(config)
    _set_tokens(config, tokenizer)
    if not sees(config):
        return tokenizer
    vision = config.vision_config
    if config.model_type == "smolvlm":
        images = SmolVLMImageProcessorPil(
            size={"longest_edge": TILES * vision.image_size}, max_image_size={"longest_edge": vision.image_size}
        )
        own = {"image_seq_len": (vision.image_size // vision.patch_size // config.scale_factor) ** 2}
    else:
        images = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size, merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size, min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28,
        )  # fmt: skip
        own = {}
    template = tokenizer.chat_template
    processor = PROCESSORS[config.model_type]
    return processor(image_processor=images, tokenizer=tokenizer, chat_template=template, **own)


def _set_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    text = config.get_text_config()
    text.eos_token_id, text.pad_token_id, text.bos_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id, None
    if config.model_type == "smolvlm":
        config.image_token_id = tokenizer.convert_tokens_to_ids(SMOLVLM["image"])
    elif sees(config):
        for name in ("image", "video", "vision_start", "vision_end"):
            token = f"<|{name}_pad|>" if name in ("image", "video") else f"<|{name}|>"
            setattr(config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))


def build_model(config: PreTrainedConfig, dtype: torch.dtype, device: str, seed: int = 0) -> PreTrainedModel:
    """Random weights; on the device 'meta' none at all, only shapes."""
    auto = AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM
    torch.manual_seed(seed)
    with torch.device(device):
        return auto.from_config(config, dtype=dtype).eval()
