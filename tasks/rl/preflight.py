"""Checks of a model in the engine kshot before any training, in seconds: each failure says what to do."""

import sys

import torch

from tasks.models import preflight
from tasks.models.generate import encode
from tasks.models.loading import tokenizer_of
from tasks.models.preflight import PreflightError
from tasks.models.prompts import Prompt
from tasks.models.training import Job
from tasks.rl import memory
from tasks.rl.policy import Group, Policy

COMPLETION = "0 1 2 3"
# The greatest difference of a log-probability: rounding, of which half precision has more.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}


def _plain(policy: Policy, encoded: dict[str, torch.Tensor], completion: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (L,) of a completion by the model's own forward: its positions, masks and picture."""
    encoded = {name: value.to(policy.base.device) for name, value in encoded.items()}
    length = encoded["input_ids"].shape[1]
    for name, more in (("input_ids", completion), ("attention_mask", torch.ones_like(completion))):
        encoded[name] = torch.cat([encoded[name], more[None]], dim=1)
    if "mm_token_type_ids" in encoded:
        none = torch.zeros_like(completion)[None]
        encoded["mm_token_type_ids"] = torch.cat([encoded["mm_token_type_ids"], none], dim=1)
    logits = policy.base(**encoded, use_cache=False).logits[0, length - 1 : -1].float()
    return (logits / policy.temperature).log_softmax(-1).gather(1, completion[:, None])[:, 0]


def check(policy: Policy, job: Job, prompt: Prompt) -> None:
    """`prompt` is of the job's first question. Raises `PreflightError`, for what SFT checks too.

    Says on stderr what memory the run needs, which must be there.
    """
    preflight.check(job, policy.model)
    tokens = tokenizer_of(job.processor)(COMPLETION, add_special_tokens=False)["input_ids"]
    completion = torch.tensor(tokens, device=prompt.input_ids.device)
    _check_logprobs(policy, job, prompt, completion)
    _check_memory(policy, job, prompt, completion)


def _check_memory(policy: Policy, job: Job, prompt: Prompt, completion: torch.Tensor) -> None:
    parts = memory.estimate(policy, job, prompt, completion)
    there = memory.available(held=parts["weights"] + parts["reference"])
    held = ", ".join(f"{name} {size:.2f}" for name, size in parts.items())
    line = f"memory: about {sum(parts.values()):.2f} of {there:.1f} GB ({held})"
    if sum(parts.values()) > there:
        raise PreflightError(
            f"{line}; give model.lora, or lower rft.micro_batch_tokens, rft.prompts_per_step, rft.num_generations or "
            "grade.batch_size"
        )
    print(line, file=sys.stderr)


@torch.no_grad()
def _check_logprobs(policy: Policy, job: Job, prompt: Prompt, completion: torch.Tensor) -> None:
    """The shared prefix must give the log-probabilities of the model's own forward (an architecture that this engine
    does not know would not), and these must change when the picture is made grey (else it never reaches the model).
    """
    encoded = encode(job.processor, job.params.prompt, job.train[:1], job.pool)
    with policy.precision():
        policy.pictures.encode([prompt])
        plain = _plain(policy, encoded, completion)
        shared, _ = policy.score([Group(prompt, [completion, completion], {})])
        grey = {name: torch.full_like(x, 0.5) if name == "pixel_values" else x for name, x in encoded.items()}
        unseen = prompt.picture is not None and torch.equal(_plain(policy, grey, completion), plain)
    difference = (shared - plain.repeat(2)).abs().max().item()
    if not difference <= TOLERANCE[policy.dtype]:
        raise PreflightError(
            f"{job.params.model.path}: log-probabilities with a shared prefix are {difference:.2g} off the model's "
            "own; its attention or positions are not those that the engine kshot knows: take rft.engine trl"
        )
    if unseen:
        raise PreflightError(
            f"{job.params.model.path}: the picture of {job.train[0].image} changes nothing; the prompt or the chat "
            "template drops it: correct model.path's chat template or take another model"
        )
