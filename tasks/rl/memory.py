"""What a run of the engine kshot needs of memory: measured on one prompt, scaled to a process's part of a step."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from tasks.models import processes
from tasks.models.precision import is_mixed
from tasks.models.prompts import Prompt
from tasks.models.training import Job
from tasks.rl import sharding
from tasks.rl.policy import Group, Policy

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def saved_bytes(policy: Policy, forward: Callable) -> int:
    """Bytes that `forward` keeps for its backward pass, the policy's parameters and autocast's copies of them aside."""
    parameters = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and not (is_mixed(policy.base) and _is_copy(tensor, policy.model)):
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()  # while it lives, no storage takes the place of another
    del kept
    return sum(sizes.values())


def _is_copy(tensor: torch.Tensor, model: nn.Module) -> bool:
    """Whether it is a parameter in another type."""
    own = tensor.mT if tensor.ndim == 2 and not tensor.is_contiguous() else tensor
    like = (p for p in model.parameters() if p.shape == own.shape and p.dtype != own.dtype)
    return any(torch.equal(p.detach().to(own.dtype), own) for p in like)


def estimate(policy: Policy, job: Job, prompt: Prompt, completion: torch.Tensor) -> dict[str, float]:
    """GB by what they hold. The prompt stands for all; `completion` (L,) is any."""
    rft, grade = job.params.rft, job.params.grade
    parameters = list(policy.model.parameters())
    weights, world = sum(p.nbytes for p in parameters), processes.world()
    trained = sum(p.nbytes for p in parameters if p.requires_grad)
    copied = sum(p.numel() for p in parameters if p.requires_grad) * policy.dtype.itemsize  # by autocast, once a pass
    sharded = sum(p.nbytes for layer in sharding.layers(policy.model) for p in layer.parameters() if p.requires_grad)
    beta = rft.ppo.beta if job.policy == "ppo" else rft.beta
    group = Group(prompt, [completion] * rft.num_generations, {})
    length, most = len(prompt.input_ids), rft.num_generations * rft.max_completion_length
    policy.model.train()  # half-precision models recompute activations only then
    with policy.precision():
        tower = saved_bytes(policy, lambda: policy.pictures.encode([prompt]))
        row = saved_bytes(policy, lambda: policy.score([group]))
    micro_batch = row / group.size * max(rft.micro_batch_tokens, length + most)
    num_prompts = rft.prompts_per_step // world
    tokens = max(num_prompts * (length + most), grade.batch_size * (length + grade.max_new_tokens))
    parts = {
        "weights": weights,
        "reference": weights if beta and not isinstance(policy.model, PeftModel) else 0,
        "gradients and Adam": 3 * (trained - sharded + sharded / world),
        "keys and values": tokens * _bytes_a_token(policy),
        "activations": num_prompts * tower + micro_batch,
    }
    parts |= {"copies in half precision": copied} if is_mixed(policy.base) else {}
    return {name: size / 1e9 for name, size in parts.items()}


def _bytes_a_token(policy: Policy) -> int:
    text = policy.base.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * width * policy.dtype.itemsize


def available(held: float) -> float:
    """GB that this process can have: what is free on the GPU, or its part of what is free in main memory and within
    the control group's limit, and `held`, the GB of it that the run has taken before it asks.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0] / 1e9 + held
    free = re.search(r"MemAvailable: +([0-9]+) kB", Path("/proc/meminfo").read_text())
    return min(int(free[1]) * 1024 / processes.world() / 1e9 + held, _limit(CGROUPS, OWN_CGROUP) / processes.world())


def _limit(root: Path, own: Path) -> float:
    """GB that the control group of this process (version 2) and those above it may take; infinite without a limit."""
    found = re.search(r"^0::/(.*)$", own.read_text() if own.exists() else "", re.MULTILINE)
    group = root / found[1] if found else root
    files = (folder / "memory.max" for folder in (group, *group.parents))
    limits = [file.read_text().strip() for file in files if file.is_file()]
    return min((int(limit) / 1e9 for limit in limits if limit != "max"), default=math.inf)
