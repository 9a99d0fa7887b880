"""The section `launch` of `params.yaml`: the processes that train one policy."""

from typing import Literal

from tasks.schema.base import Count, Section


class Launch(Section):
    """`num_processes` share the batches of a training: of `sft.batch_size` answers and `rft.prompts_per_step` prompts
    each takes its part, so that the steps are those of one process. `ddp`: the model is whole in each; `fsdp`: the
    engine kshot shards its layers (PyTorch's fully_shard), supervised steps run as with `ddp`; `zero*`: DeepSpeed
    shards what SFT and the engine trl train.
    """

    backend: Literal["single", "ddp", "fsdp", "zero2", "zero3", "zero3_offload"]
    num_processes: Count


def shared_out(study):
    """`study` (tasks.params.Params), whose batches must share out over the processes without a rest."""
    num, backend = study.launch.num_processes, study.launch.backend
    if (num == 1) != (backend == "single"):
        raise ValueError(f"launch.num_processes {num} does not go with launch.backend {backend}: 1 is `single`")
    if backend == "fsdp" and study.rft.engine == "trl":
        raise ValueError("launch.backend fsdp: rft.engine trl runs with ddp and zero* only; take rft.engine kshot")
    if backend not in ("single", "ddp") and study.model.lora and study.model.lora.quantize:
        raise ValueError(
            f"launch.backend {backend}: model.lora.quantize {study.model.lora.quantize} holds weights in 4 bits, which "
            "are not sharded; take launch=ddp, or model.lora.quantize null"
        )
    if backend.startswith("zero") and study.rft.engine == "kshot":
        raise ValueError(
            f"launch.backend {backend}: DeepSpeed averages as many backward passes of each process, where rft.engine "
            "kshot sums over micro-batches, more in one than in another: take fsdp, which shards RFT, or "
            "rft.engine trl"
        )
    batches = {"rft.prompts_per_step": study.rft.prompts_per_step}
    batches |= {"warmup.batch_size": study.warmup.batch_size, "sft.batch_size": study.sft.batch_size}
    for name, size in batches.items():
        if size % num:
            raise ValueError(f"{name} {size} must be a multiple of launch.num_processes {num}")
    return study
