"""What the processes of one training share out and bring together; alone, all of it is what was given.

Every process draws the numbers of the whole step and takes its part, in the order of the ranks; what is computed over
a step (weights, whitening, metrics) is made of the parts of all. So N processes make the steps of one.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")
BUCKET = 2**25  # gradient numbers that are summed at once


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what all of them hold: neighbours, as many as the others' or one more or less."""
    num, all_of_them = len(items), world()
    return items[num * rank() // all_of_them : num * (rank() + 1) // all_of_them]


def gather(items: Sequence[T]) -> list[T]:
    """The items of every process, which must pickle; tensors on the CPU."""
    if world() == 1:
        return list(items)
    parts: list[Any] = [None] * world()
    distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def gather_tokens(values: torch.Tensor) -> tuple[torch.Tensor, slice]:
    """(N, ...) of the (n, ...) of every process, and where among them those of this one are."""
    if world() == 1:
        return values, slice(None)
    parts = gather([values.cpu()])
    start = sum(map(len, parts[: rank()]))
    return torch.cat(parts).to(values.device), slice(start, start + len(values))


def total(numbers: dict[str, float]) -> dict[str, float]:
    """The sums by name over all processes, each of which may know other names."""
    sums: dict[str, float] = {}
    for one in gather([numbers]):
        for name, value in one.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def any_of(flag: bool) -> bool:
    """Whether it is true in one of them."""
    return any(gather([flag]))


def of_main(value: T) -> T:
    """What process 0 gives, in all."""
    if world() == 1:
        return value
    given = [value]
    distributed.broadcast_object_list(given, src=0)
    return given[0]


def wait() -> None:
    """Until every process is here."""
    gather([])


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of the gradients of all. A parameter without one in any process keeps none."""
    if world() == 1:
        return
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    distributed.all_reduce(has, distributed.ReduceOp.MAX)
    learning = [p for p, some in zip(parameters, has.tolist(), strict=True) if some]
    for p in learning:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    bucket: list[torch.Tensor] = []
    for n, p in enumerate(learning):
        bucket.append(p.grad)
        last = n + 1 == len(learning) or learning[n + 1].dtype != p.dtype
        if last or sum(gradient.numel() for gradient in bucket) >= BUCKET:
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))
            bucket = []
