"""Rollouts by vLLM in the place of `tasks.models.rollout.roll_out` (docs/vllm.md).

Tokens go in and come out, of pictures with one place each, which vLLM's processor widens: the prompt that it read must
be ours, token for token. The weights are sent before every rollout. vLLM's kernels are not the trainer's, so the policy
scores what was sampled, and by how much the two differ is a weight of each token (`tasks.rl.losses.importance`).
"""

from collections.abc import Sequence

import torch
from peft import PeftModel
from PIL import Image
from transformers import PreTrainedModel

from tasks.models.prompts import Prompt
from tasks.models.rollout import Rollout, Sampling
from tasks.models.training import Job
from tasks.rl.logprobs import token_entropy
from tasks.rl.losses import importance, mismatch
from tasks.rl.policy import Group, Policy, get_tokens, micro_batches, set_tokens
from tasks.rl.vllm_engines import VIDEO, Answer, Colocated, Request, Server, VllmError

NEVER = -100.0  # the least that vLLM adds to a logit


class Vllm:
    """The sampler that `rft.vllm` asks for."""

    def __init__(self, job: Job, model: PreTrainedModel | PeftModel):
        self._job, self._sleeps = job, job.params.rft.vllm.sleep
        self._engine = {"colocated": Colocated, "server": Server}[job.params.rft.vllm.mode](job, model)
        if self._sleeps:
            self._engine.sleep()

    def roll_out(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, generator: torch.Generator
    ) -> Rollout:
        """As `tasks.models.rollout.roll_out`, with the log-probabilities that vLLM sampled from beside the policy's.
        The pictures of `policy` must have been encoded. The generator gives each prompt a seed.
        """
        if self._sleeps:
            self._engine.wake()
        self._engine.load(policy.model)
        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        requests = [self._request(policy, *one, sampling) for one in zip(prompts, seeds, strict=True)]
        answers = self._engine.generate(requests)
        if self._sleeps:
            self._engine.sleep()
        for prompt, answer in zip(prompts, answers, strict=True):
            check(prompt, answer, sampling)
        return scored(policy, prompts, answers, sampling.eos, self._job.params.rft.micro_batch_tokens)

    def _request(self, policy: Policy, prompt: Prompt, seed: int, sampling: Sampling) -> Request:
        tokens, picture = prompt.input_ids.tolist(), None
        if prompt.picture is not None:
            kind, place = policy.base.config.model_type, policy.base.config.image_token_id
            if kind not in VIDEO:
                raise VllmError(
                    f"rft.vllm: pictures of {kind} are not known here ({', '.join(VIDEO)} are): take rft.vllm null"
                )
            tokens = [t for n, t in enumerate(tokens) if t != place or tokens[n - 1] != place]
            picture = Image.open(self._job.pool / prompt.picture).convert("RGB")
        return Request(tokens, picture, sampling_params(sampling, seed))


def sampling_params(sampling: Sampling, seed: int) -> dict:
    """vLLM's SamplingParams: every token of the vocabulary but the forbidden ones, up to the end of turn."""
    return {
        "n": sampling.num_generations, "max_tokens": sampling.max_length, "temperature": sampling.temperature,
        "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": seed, "logprobs": 0,
        "ignore_eos": True, "stop_token_ids": [sampling.eos], "detokenize": False,
        "logit_bias": {token: NEVER for token in sampling.forbidden},
    }  # fmt: skip


def check(prompt: Prompt, answer: Answer, sampling: Sampling) -> None:
    """Raises `VllmError` where vLLM read another prompt, or sampled what it must not."""
    ours = prompt.input_ids.tolist()
    if answer.prompt != ours:
        raise VllmError(
            f"vLLM read a prompt of {len(answer.prompt)} tokens, of which the policy's has {len(ours)}"
            + (f" ({prompt.picture})" if prompt.picture else "")
            + ": its processor is another one, or scales pictures otherwise: serve the folder that `python -m "
            "tasks.rl.vllm_engines FOLDER` writes"
        )
    if found := {token for completion in answer.completions for token in completion} & set(sampling.forbidden):
        raise VllmError(f"vLLM sampled the control tokens {sorted(found)}, which its logit_bias forbids")


@torch.no_grad()
def scored(policy: Policy, prompts: Sequence[Prompt], answers: Sequence[Answer], eos: int, budget: int) -> Rollout:
    """The rollout of these answers, scored by the policy in micro-batches of at most `budget` tokens."""
    device = policy.base.device
    completions = [torch.tensor(c, device=device) for answer in answers for c in answer.completions]
    num = len(completions) // len(prompts)
    groups = [Group(prompt, completions[n * num : (n + 1) * num], {}) for n, prompt in enumerate(prompts)]
    for batch in micro_batches(groups, budget):
        logprobs, hidden = policy.score(batch)
        set_tokens(batch, "logprobs", logprobs)
        with policy.precision():
            set_tokens(batch, "entropy", token_entropy(policy.head, hidden, policy.temperature))
    each = [[part for group in groups for part in group.tokens[name].split(group.lengths.tolist())]
            for name in ("logprobs", "entropy")]  # fmt: skip
    ended = torch.stack([completion[-1] == eos for completion in completions])
    sampled = [torch.tensor(one, device=device) for answer in answers for one in answer.logprobs]
    return Rollout(completions, *each, ended, sampled)


def correct(groups: Sequence[Group], most: float) -> dict[str, float]:
    """Weigh every token by how much likelier the policy was to write it than the sampler; how far these two are apart.
    Groups that an algorithm gave no weights are not learned from, or as answers that are right whoever wrote them.
    """
    for group in groups:
        if "weights" in group.tokens:
            ratio = importance(group.tokens["old_logprobs"], group.tokens["sampled"], most)
            group.tokens["weights"] = group.tokens["weights"] * ratio
    return mismatch(get_tokens(groups, "old_logprobs"), get_tokens(groups, "sampled"), most)
