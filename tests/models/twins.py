"""Every model family as a folder of a few thousand random weights: shapes from models/geometry, made small."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig

from tasks.models.geometry import FOLDER, build_model, build_processor
from tasks.models.loading import load_processor
from tasks.params import Model

TWINS = {
    "qwen2_vl": "Qwen2-VL-2B-Instruct",
    "qwen2_5_vl": "Qwen2.5-VL-3B-Instruct",
    "qwen3_vl": "Qwen3-VL-2B-Instruct",
    "smolvlm": "SmolVLM2-256M-Video-Instruct",
    "qwen3": "Qwen3-0.6B",
    "llama": "Llama-3.2-1B-Instruct",
}
TEXT = dict(
    vocab_size=704, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, initializer_range=0.2,
)  # fmt: skip
VISION = {
    "qwen2_vl": dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2),
    "qwen2_5_vl": dict(
        depth=2, hidden_size=16, out_hidden_size=32, intermediate_size=32, num_heads=2, fullatt_block_indexes=[1]
    ),
    "qwen3_vl": dict(
        depth=2, hidden_size=16, out_hidden_size=32, intermediate_size=32, num_heads=2, deepstack_visual_indexes=[0],
        num_position_embeddings=64, initializer_range=0.2,
    ),
    "smolvlm": dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4,
        initializer_range=0.2,
    ),
}  # fmt: skip


def write_twin(family: str, folder: Path) -> Model:
    """The section `model` that names the twin in `folder`."""
    raw = json.loads((FOLDER / f"{TWINS[family]}.json").read_text())
    text = raw.get("text_config", raw)
    text.update(TEXT)
    if "mrope_section" in text["rope_parameters"]:
        text["rope_parameters"]["mrope_section"] = [2, 1, 1]
    if family in VISION:
        raw["vision_config"].update(VISION[family])
    config = AutoConfig.for_model(**raw)
    processor = build_processor(config)
    build_model(config, torch.float32, "cpu").save_pretrained(folder)
    processor.save_pretrained(folder)
    pixels = {"min_pixels": 3136, "max_pixels": 12544} if "qwen" in family and family in VISION else {}
    model = Model(
        path=str(folder), revision=None, dtype="float32", coordinates="relative_1000", lora=None,
        **{"min_pixels": None, "max_pixels": None, **pixels},
    )  # fmt: skip
    load_processor(model)
    return model
