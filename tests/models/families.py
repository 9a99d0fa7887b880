"""Random-weight models of every family, tiny, in fp32, and prompts for them."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from tasks.models.prompts import make_prompt

VOCABULARY, EOS, IMAGE, VIDEO, VISION_START = 64, 1, 60, 61, 62
TEXT_FAMILIES = ("qwen3", "llama")
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", *TEXT_FAMILIES)
TEXT = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, pad_token_id=0, eos_token_id=EOS,
)  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
TOKENS = dict(image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=VISION_START, vision_end_token_id=63)


def make_model(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if family == "qwen2_vl":
        vision = dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, patch_size=4, mlp_ratio=2)
        text = {**TEXT, "rope_parameters": ROPE}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **TOKENS))
    elif family == "qwen2_5_vl":
        vision = dict(
            depth=2, hidden_size=16, out_hidden_size=32, intermediate_size=32, num_heads=2, patch_size=4,
            window_size=16, fullatt_block_indexes=[1],
        )  # fmt: skip
        text = {**TEXT, "rope_parameters": ROPE}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **TOKENS))
    elif family == "qwen3_vl":
        vision = dict(
            depth=2, hidden_size=16, out_hidden_size=32, intermediate_size=32, num_heads=2, patch_size=4,
            num_position_embeddings=64, deepstack_visual_indexes=[0], initializer_range=0.2,
        )  # fmt: skip
        text = {**TEXT, "head_dim": 8, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **TOKENS))
    elif family == "smolvlm":
        vision = dict(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=4, initializer_range=0.2,
        )  # fmt: skip
        text = {**TEXT, "model_type": "llama"}
        config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2, image_token_id=IMAGE)
        model = SmolVLMForConditionalGeneration(config)
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**TEXT))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**TEXT, head_dim=8))
    return model.eval()


def encoded(family: str, number: int) -> dict[str, torch.Tensor]:
    """What a processor gives for prompt `number`: lengths and pictures differ."""
    generator = torch.Generator().manual_seed(number)
    before, after = (torch.randint(2, 50, (1, 3 + number), generator=generator) for _ in range(2))
    if family in TEXT_FAMILIES:
        return {"input_ids": torch.cat([before, after], dim=1)}
    if family == "smolvlm":  # 1, 2, ... tiles of 4 tokens
        tokens = torch.tensor([[VISION_START, *[IMAGE] * 4] * (1 + number)])
        return {
            "input_ids": torch.cat([before, tokens, after], dim=1),
            "pixel_values": torch.randn(1, 1 + number, 3, 16, 16, generator=generator),
            "pixel_attention_mask": torch.ones(1, 1 + number, 16, 16, dtype=torch.long),
        }
    height, width = 2 * (1 + number), 4
    num = height * width // 4
    ids = torch.cat([before, torch.tensor([[VISION_START, *[IMAGE] * num, 63]]), after], dim=1)
    pixels = torch.randn(height * width, 3 * 2 * 4 * 4, generator=generator)
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, height, width]]),
    }


def make_prompts(family: str, model: torch.nn.Module, num: int = 3) -> list:
    return [make_prompt(model, encoded(family, n), picture=f"picture {n}") for n in range(num)]
