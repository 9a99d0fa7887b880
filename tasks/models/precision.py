"""What a model computes in, where that is not the type of its weights (`model.compute`): mixed precision.

The weights, their gradients and AdamW's moments stay as they are; each matrix product is of bfloat16 copies, which
autocast makes. A step that is too small for bfloat16 still moves a float32 weight.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel

from tasks.params import Model

LEAST_STEP = 4e-5  # half the distance of two neighbours in bfloat16 at 0.02, a usual weight


def compute_as(params: Model, model: PreTrainedModel) -> PreTrainedModel:
    """`model`, which remembers it: whoever has it computes alike."""
    model.computing = getattr(torch, params.computing)
    return model


def computing(model: PreTrainedModel) -> torch.dtype:
    """Of a model without PEFT's shell; what `load_model` did not make computes as its weights are."""
    return getattr(model, "computing", model.dtype)


def precision(model: PreTrainedModel) -> AbstractContextManager:
    """bfloat16 is computed as transformers' Trainer does: under autocast, with bfloat16 weights too."""
    half = computing(model) == torch.bfloat16
    return torch.autocast(model.device.type, torch.bfloat16) if half else nullcontext()


def is_mixed(model: PreTrainedModel) -> bool:
    return computing(model) != model.dtype
