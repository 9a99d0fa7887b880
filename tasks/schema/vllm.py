"""The key `rft.vllm` of `params.yaml`: rollouts by vLLM (docs/vllm.md)."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.schema.base import Section

# Of the policy's probability of a token over the sampler's (tasks.rl.losses.importance); TRL's is 3.
Cap = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Colocated(Section):
    """vLLM in the process that trains, on its GPU, of whose memory it takes `memory_share`. With `sleep` it gives that
    back while the policy learns.
    """

    mode: Literal["colocated"]
    memory_share: Annotated[float, Field(gt=0, lt=1)]
    sleep: bool
    max_importance: Cap


class Server(Section):
    """A `vllm serve` at `address`, in an environment of its own. With `sleep`, for a server on the trainer's GPU, it
    sleeps while the policy learns.
    """

    mode: Literal["server"]
    address: Annotated[str, Field(pattern=r"^https?://[^/]+$")]
    sleep: bool
    max_importance: Cap


Vllm = Annotated[Colocated | Server, Field(discriminator="mode")]


def goes_with_vllm(study):
    """`study` (tasks.params.Params), whose other settings must be such as rollouts by vLLM are made for."""
    if study.rft.vllm is None:
        return study
    if study.rft.engine == "trl":
        raise ValueError("rft.vllm is for rft.engine kshot: take that, or rft.vllm null")
    if study.launch.num_processes > 1:
        raise ValueError(
            f"rft.vllm has one process train (launch.num_processes {study.launch.num_processes}, launch.backend "
            f"{study.launch.backend}): take launch=single, or rft.vllm null"
        )
    if study.model.lora and study.model.lora.quantize:
        raise ValueError(
            "rft.vllm gets the adapter merged into whole weights, which model.lora.quantize "
            f"{study.model.lora.quantize} does not hold: take quantize null, or rft.vllm null"
        )
    return study
