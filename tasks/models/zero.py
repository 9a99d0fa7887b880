"""DeepSpeed under transformers' Trainer (`launch.backend: zero2`, `zero3`, `zero3_offload`): SFT, and GRPO by TRL.

A process holds 1 / N of AdamW's state and of the gradients, by zero3 of the weights too, by zero3_offload all of that
in main memory. The model is loaded whole and then shared out. While nothing is learned (validation) it is whole again.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.state import AcceleratorState, PartialState
from peft import PeftModel
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl.models import unwrap_model_for_generation

from tasks.models.training import Job

STAGES = {"zero2": 2, "zero3": 3, "zero3_offload": 3}


def options(job: Job) -> dict:
    """What the Trainer is told beside `make_options`; of the batch, rate and precision it tells DeepSpeed itself."""
    backend = job.params.launch.backend
    if backend not in STAGES:
        return {}
    zero: dict = {"stage": STAGES[backend]}
    if STAGES[backend] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if backend == "zero3_offload":
        zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    precision = {name: {"enabled": "auto"} for name in ("bf16", "fp16")}
    config = {"zero_optimization": zero, **dict.fromkeys(auto, "auto"), **precision}
    return {"deepspeed": config, "use_cpu": False} | ({} if torch.cuda.is_available() else _on_cpus())


def _on_cpus() -> dict:
    """accelerate knows DeepSpeed on GPUs only: with `use_cpu` it takes its own DDP, and without, where there is no GPU,
    each process for the only one, unless its state is made for it.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")
    del os.environ["ACCELERATE_USE_DEEPSPEED"]  # as TrainingArguments does
    return {"accelerator_config": {"use_configured_state": True}}


def whole(job: Job, trainer: Trainer) -> Callable[[PreTrainedModel], AbstractContextManager]:
    """Inside `whole(job, trainer)(model)`, sharded weights are whole, and forward passes need no other process."""
    if STAGES.get(job.params.launch.backend) != 3:
        return nullcontext
    return lambda _: unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)


def restorable(job: Job, model: PreTrainedModel | PeftModel) -> PreTrainedModel | PeftModel:
    """The model that takes the weights that validation kept: where they are sharded, one that is loaded anew."""
    if STAGES.get(job.params.launch.backend) != 3:
        return model
    unset_hf_deepspeed_config()  # else it would be sharded as it is loaded
    return job.load()
