"""Processors of pictures and text without the part for videos, which cannot be built without torchvision.

Pictures need none, so ours are the stock classes without that part, with torchvision or not.
"""

from transformers import (
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

# Without the package num2words, which writes the length of a video in words, the class refuses pictures too.
processing_smolvlm.num2words = processing_smolvlm.num2words or str


def without_video(base: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """`base` with an image processor and a tokenizer only. It keeps its name: saved folders name the stock class."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, image_seq_len=None, **kwargs):
        """`image_seq_len`: tokens of a tile, of SmolVLM alone."""
        tile = {} if image_seq_len is None else {"image_seq_len": image_seq_len}
        parts = {"video_processor": None, "chat_template": chat_template, **tile}
        base.__init__(self, image_processor, tokenizer, **parts, **kwargs)

    # transformers reads the parts of a processor, and what is stored of it, off the arguments of this __init__.
    # SmolVLM's own method asks the video processor for its rate
    own = {"__init__": __init__, "apply_chat_template": ProcessorMixin.apply_chat_template}
    return type(base.__name__, (base,), own)


PROCESSORS = {
    "qwen2_vl": without_video(Qwen2VLProcessor),
    "qwen2_5_vl": without_video(Qwen2_5_VLProcessor),
    "qwen3_vl": without_video(Qwen3VLProcessor),
    "smolvlm": without_video(SmolVLMProcessor),
}
