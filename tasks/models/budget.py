"""What a training run costs: optimizer steps, tokens, arithmetic, memory. Validation is not counted."""

import resource
from dataclasses import asdict, dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tasks.models import processes


@dataclass
class Budget:
    """Tokens that were computed: a prompt that serves G completions counts once where it is computed once. A picture
    counts as the tokens that it takes in the prompt. To sample is to read a prompt and to write completions; to train
    is a forward and a backward pass.
    """

    gradient_steps: int = 0
    prompt_tokens_trained: int = 0
    completion_tokens_trained: int = 0
    prompt_tokens_sampled: int = 0
    completion_tokens_sampled: int = 0

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
        """Kaplan et al. 2020 (arXiv 2001.08361, table 1). With N parameters outside the embeddings, a token costs 2 N
        forward, 2 N backward to the activations, and 2 backward to each trained one. Attention is left out.
        """
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        every, trained = (base.num_parameters(only_trainable=only, exclude_embeddings=True) for only in (False, True))
        learned = self.prompt_tokens_trained + self.completion_tokens_trained
        sampled = self.prompt_tokens_sampled + self.completion_tokens_sampled
        return float(learned * (4 * every + 2 * trained) + sampled * 2 * every)


def peak_memory() -> int:
    """Bytes: allocated on the GPU, else resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
