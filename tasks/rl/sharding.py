"""The policy sharded over the processes (`launch.backend: fsdp`): PyTorch's fully_shard on each decoder layer.

An update holds one layer whole at a time, and of the others' gradients and optimizer state 1 / N. What stands outside
the decoder layers (embeddings, head, vision tower), and a reference that is a copy, are whole in every process. While
nothing is learned (rollout, reference, validation) the layers are whole too, so that processes need not keep step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from tasks.models import processes


def shard(model: PreTrainedModel) -> None:
    """Shard the decoder layers of `model`, which is without PEFT's shell. Gradients become sums, not means."""
    mesh = init_device_mesh(model.device.type, (processes.world(),))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def layers(model: nn.Module) -> list[FSDPModule]:
    """Those of a model that are sharded."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, sharded layers are whole, and forward passes need no other process."""
    sharded = layers(model)
    for layer in sharded:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    yield
    for layer in sharded:
        layer.reshard()
        layer.set_reshard_after_forward(True)


def alike(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The whole ones and the sharded ones, as far as there are any: one step of AdamW takes no mixture."""
    parts = [[p for p in parameters if isinstance(p, DTensor) == sharded] for sharded in (False, True)]
    return [part for part in parts if part]


def passes_owed(model: nn.Module, num: int) -> int:
    """How many forward and backward passes after its own `num` a process owes to the sharded layers of the others."""
    return max(processes.gather([num])) - num if layers(model) else 0


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the gradient of all; sharded layers have summed theirs already."""
    processes.sum_gradients([p for p in parameters if not isinstance(p, DTensor)])


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """The norm of the gradient, which is scaled down to `most`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    if not parts:
        return float(nn.utils.clip_grad_norm_(parameters, most))
    plain = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    square = torch.stack([part.float().square().sum() for part in parts]).sum()
    distributed.all_reduce(square)
    norm = (square + sum(gradient.float().square().sum() for gradient in plain)).sqrt()
    for gradient in [*parts, *plain]:
        gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))  # as nn.utils.clip_grad_norm_ does
    return norm.item()


def full(tensor: torch.Tensor, wanted: bool = True) -> torch.Tensor:
    """A tensor whole, on the CPU where it was sharded. Every process must ask; one that has not `wanted` it gets an
    empty one instead, since all of a model, three times, is more than each of them can hold.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    whole = tensor.detach().full_tensor()
    return whole.cpu() if wanted else whole.new_empty(0)


def like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A copy of `value`, whole, on the device of `tensor` and sharded as it is."""
    value = value.to(tensor.device, copy=True)
    sharded = isinstance(tensor, DTensor) and value.shape == tensor.shape
    return distribute_tensor(value, tensor.device_mesh, tensor.placements) if sharded else value
