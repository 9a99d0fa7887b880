"""What a training run costs: optimizer steps, tokens, arithmetic, memory. Validation is not counted."""

import json
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tasks.models import processes
from tasks.models.adapters import without_adapter


@dataclass
class Budget:
    """Tokens that were computed: a prompt that serves G completions counts once where it is computed once. A picture
    counts as the tokens that it takes in the prompt. To sample is to read a prompt and to write completions; to train
    is a forward and a backward pass; to score is a forward pass alone, over a prompt and its completions: by the
    reference, for PPO's values, of what vLLM sampled.
    """

    gradient_steps: int = 0
    prompt_tokens_trained: int = 0
    completion_tokens_trained: int = 0
    prompt_tokens_sampled: int = 0
    completion_tokens_sampled: int = 0
    tokens_scored: int = 0

    def watch(self, model: PreTrainedModel | PeftModel) -> None:
        """Count each supervised batch that `model` is trained on: an optimizer step; a prompt has labels of -100."""

        def note(module, args, batch: dict) -> None:
            if module.training and "labels" in batch:
                completion = int((batch["labels"] != -100).sum())
                self.gradient_steps += 1
                if completion:  # else a row that keeps a process company that has none (tasks.sft)
                    self.completion_tokens_trained += completion
                    self.prompt_tokens_trained += int(batch["attention_mask"].sum()) - completion

        model.register_forward_pre_hook(note, with_kwargs=True)

    def of_all(self) -> "Budget":
        """What all processes used, where each counted its own tokens. Every process makes every optimizer step."""
        used = processes.total(asdict(self))
        return Budget(**{**used, "gradient_steps": max(processes.gather([self.gradient_steps]))})

    def row(self, model: PreTrainedModel | PeftModel) -> dict[str, float]:
        """The counts, the `flops` of the run and the `peak_memory` of this process in bytes (of the GPU, if any)."""
        return {**asdict(self), "flops": self._flops(model), "peak_memory": peak_memory()}

    def _flops(self, model: PreTrainedModel | PeftModel) -> float:
        learned = self.prompt_tokens_trained + self.completion_tokens_trained
        read = self.prompt_tokens_sampled + self.completion_tokens_sampled + self.tokens_scored
        of_learned, of_read = flops_of_a_token(model)
        return float(learned * of_learned + read * of_read)


@dataclass(frozen=True)
class Matched:
    """What SFT may spend in place of its own steps: the gradient steps or the FLOPs of the RFT run in the folder `rft`
    and of its `warmup`.

    Both are read from what these runs have left, and not computed from params.yaml: GRPO skips groups whose rewards are
    all equal, stops early, and writes completions whose length nobody knows before. On the twins the steps are up to
    17% fewer than rft.steps says, and the completions 1.1 to 3.1 times as long as the gold answers.
    """

    mode: Literal["steps", "flops"]
    warmup: Path
    rft: Path

    @property
    def budget(self) -> float:
        """In gradient steps, or in FLOPs. Raises ValueError for a run that did not count."""
        return sum(_told(folder / "history.json", self.mode) for folder in (self.warmup, self.rft))

    def num_steps(self, model: PreTrainedModel | PeftModel, tokens: Sequence[int], batch_size: int) -> int:
        """Steps of SFT that spend the budget, where its examples take so many `tokens`; an epoch's last batch may be
        smaller. It can be very many epochs: SFT keeps its best checkpoint on val, as ever.
        """
        if self.mode == "steps":
            return int(self.budget)
        epochs = self.budget / (sum(tokens) * flops_of_a_token(model)[0])
        return max(1, round(epochs * ceil(len(tokens) / batch_size)))


def _told(path: Path, mode: str) -> float:
    history = json.loads(path.read_text(encoding="utf-8"))
    if not history["steps"]:  # a warm-up of 0 steps
        return 0.0
    if "budget" not in history:
        raise ValueError(f"{path} tells no budget for SFT to match: take rft.engine kshot, or grid.matched data")
    return history["budget"][{"steps": "gradient_steps", "flops": "flops"}[mode]]


def flops_of_a_token(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """(learned from, sampled or scored). Kaplan et al. 2020 (arXiv 2001.08361, table 1): with N parameters outside the
    embeddings, a token costs 2 N forward, 2 N backward to the activations, and 2 backward to each trained one.
    Attention is left out.
    """
    base = without_adapter(model)
    every, trained = (base.num_parameters(only_trainable=only, exclude_embeddings=True) for only in (False, True))
    return 4 * every + 2 * trained, 2 * every


def peak_memory() -> int:
    """Bytes: allocated on the GPU, else resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
