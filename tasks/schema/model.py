"""The section `model` of params.yaml: which weights, what of them learns, and how an adapter is made."""

from typing import Literal

from pydantic import model_validator

from tasks.schema.base import Count, Positive, Section, Share


class Lora(Section):
    """An adapter beside frozen weights (LoRA, arXiv 2106.09685). `dora`: its magnitude is learned apart from its
    direction (arXiv 2402.09353). `quantize`: the frozen weights are held in 4 bits while training (QLoRA, arXiv
    2305.14314); needs bitsandbytes. `output`: what a trained folder holds: whole weights, or the adapter alone.
    """

    r: Count
    alpha: Positive
    dropout: Share
    target_modules: str  # a regular expression or 'all-linear', as PEFT takes it
    dora: bool = False
    quantize: Literal["nf4"] | None = None
    output: Literal["merged", "adapter"] = "merged"


class Model(Section):
    """`path` is a local folder or a hub id (then pin `revision`). `geometry`: the same shapes with random weights, from
    models/geometry, without a download. `compute` (null: as `dtype`) bfloat16 beside a `dtype` of float32 is mixed
    precision: products of bfloat16, while weights, gradients and AdamW's moments stay float32. `trained`: the part
    whose weights, or with `lora` whose adapter, learn; the rest is frozen. `attention` is that of SFT and of the engine
    trl; with sdpa, answers and the engine kshot share prefixes (`tasks.models.prefix`).
    """

    path: str
    revision: str | None
    dtype: Literal["float32", "bfloat16", "float16"]
    compute: Literal["bfloat16"] | None = None
    min_pixels: Count | None
    max_pixels: Count | None
    coordinates: Literal["relative_1000", "absolute_resized", "absolute"]
    lora: Lora | None
    trained: Literal["all", "language", "vision"] = "all"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    geometry: bool = False

    @property
    def computing(self) -> str:
        """The type that products are of."""
        return self.compute or self.dtype

    @model_validator(mode="after")
    def _computes_with_its_own_range(self):
        if self.compute and self.dtype == "float16":
            raise ValueError(f"compute {self.compute} goes with dtype float32 (mixed precision), not with float16")
        return self

    @model_validator(mode="after")
    def _flash_attention_is_half(self):
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError("attention flash_attention_2 computes in half precision: take dtype bfloat16, or sdpa")
        return self
