"""The shapes of the shipped base model: Qwen3-VL's stock classes at 2 million parameters, some 600 tokens, 112-pixel
pictures.

Nothing here is custom modelling code: the folder that `python -m tasks.models.pretrain` writes loads with plain
`AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained`, like any checkpoint of the hub.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, ProcessorMixin, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tasks.data.scenes import SIDE
from tasks.models.processors import PROCESSORS

PATCH, MERGE = 14, 2
NUM_IMAGE_TOKENS = (SIDE // PATCH // MERGE) ** 2
CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The fixed phrases of the answer format are a token each, as they nearly are in a tokenizer of 150,000.
PHRASES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "[{'Position': [",
    "], 'Confidence': ",
    "}, {'Position': [",
    "}]",
    "),(",
    "No Objects",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(corpus: Iterable[str], vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every digit is one token; any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|, | ?\p{L}+|[^\d\p{L}]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(PHRASES),
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in PHRASES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(CONTROL[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    """Pictures of about SIDE x SIDE pixels; larger ones are scaled down to that area."""
    pixels = SIDE * SIDE
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, min_pixels=pixels // 4, max_pixels=pixels,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return PROCESSORS["qwen3_vl"](image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL}
    text = dict(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, initializer_range=0.04,
        rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True,
        },
        tie_word_embeddings=True, pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
    )  # fmt: skip
    vision = dict(
        depth=4, hidden_size=128, intermediate_size=352, num_heads=4, patch_size=PATCH, spatial_merge_size=MERGE,
        temporal_patch_size=2, out_hidden_size=128, num_position_embeddings=(SIDE // PATCH) ** 2,
        deepstack_visual_indexes=[1], initializer_range=0.04,
    )  # fmt: skip
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Random weights from torch's generator."""
    model = Qwen3VLForConditionalGeneration(build_config(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
