"""ReFT's reward model (arXiv 2401.08967, section 4.4): is this chain right? Trained on samples, to choose among others.

The policy with a linear head on its hidden state at a chain's last token, all its weights (or a LoRA adapter) trained
by cross-entropy on chains of what RFT began with, each once, labelled right or wrong by THE grader. The epoch kept is
the one that chooses best on val; ReFT's code looks at the test for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from tasks.data.records import Question
from tasks.graders.batch import grade_all, stop_if_invalid
from tasks.models.adapters import without_adapter
from tasks.models.generate import answer, encode
from tasks.models.precision import computing, precision
from tasks.models.training import Job
from tasks.models.validation import trainable
from tasks.progress import progress_bar
from tasks.schema.reward import RewardModel as Settings

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Chain:
    """A sampled answer, and whether it is right."""

    question: Question
    text: str
    right: bool


def sample_chains(job: Job, model: PreTrainedModel, questions: Sequence[Question], num: int) -> list[Chain]:
    """`num` samples of the model to each question, those of the same words once, graded by the job's grader; without
    those that cannot be graded. `InvalidRewards` where these are many.
    """
    params = job.params
    texts = answer(
        model, job.processor, params.prompt, questions, job.pool, params.grade.batch_size, params.grade.max_new_tokens,
        progress="chains", temperature=params.grade.temperature, samples=num, seed=job.seed,
    )  # fmt: skip
    asked = [question for question in questions for _ in range(num)]
    pairs = list(dict.fromkeys(zip(asked, texts, strict=True)))
    grades = grade_all(job.grader, [text for _, text in pairs], [question for question, _ in pairs])
    stop_if_invalid(job.grader, [grade.invalid for grade in grades if grade.invalid], len(grades))
    graded = [(pair, grade) for pair, grade in zip(pairs, grades, strict=True) if not grade.invalid]
    return [Chain(*pair, grade.sub_rewards["answer"] == 1) for pair, grade in graded]


class RewardModel:
    """The weights that `job` starts from, and a head. ValueError for half precision without bfloat16's range."""

    def __init__(self, job: Job):
        if job.params.model.dtype == "float16":
            raise ValueError("model.dtype float16: a reward model has no loss scaling; take bfloat16 or float32")
        self._job, self._model = job, job.load()
        self._base = without_adapter(self._model)
        if computing(self._base) == torch.bfloat16:
            self._model.activation_checkpointing_enable({"use_reentrant": False})
        width = self._base.config.get_text_config().hidden_size
        self._head = nn.Linear(width, 1, device=self._base.device)
        nn.init.normal_(self._head.weight, std=0.02)
        nn.init.zeros_(self._head.bias)

    def logits(self, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """(B,): how much rather right than wrong each answer is."""
        job, device = self._job, self._base.device
        batch = encode(job.processor, job.params.prompt, questions, job.pool, texts)
        with precision(self._base):
            inputs = {name: value.to(device) for name, value in batch.items()}
            hidden = self._base.model(**inputs, use_cache=False).last_hidden_state
        return self._head(hidden[:, -1].float())[:, 0]  # padded on the left: the last token is the chain's

    @torch.no_grad()
    def score(self, questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        """The logit of each answer."""
        self._model.eval()
        num, found = self._job.params.grade.batch_size, []
        for start in range(0, len(texts), num):
            found += self.logits(questions[start : start + num], texts[start : start + num]).tolist()
        return found

    def fit(self, chains: Sequence[Chain], val: Sequence[Chain], settings: Settings) -> list[dict[str, float]]:
        """The weights of the best epoch; the row of each: its `loss` and, on val, `val_loss` and `val_rerank`.

        Raises ValueError where all chains are right, or all wrong.
        """
        num_right = sum(chain.right for chain in chains)
        if num_right in (0, len(chains)):
            raise ValueError(
                f"{num_right} of {len(chains)} sampled chains are right: a reward model learns from right and wrong "
                "ones; raise reward_model.samples or grade.temperature, take more problems (grid.k), or no grid.rerank"
            )
        trained = [*trainable(self._model).values(), *self._head.parameters()]
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
        generator, rows, best = torch.Generator().manual_seed(self._job.seed), [], None
        for epoch in range(1, settings.epochs + 1):
            loss = self._epoch(chains, settings.batch_size, optimizer, trained, generator)
            rows.append({"epoch": epoch, "loss": loss, **self._validate(val)})
            rank = (rows[-1]["val_rerank"], -rows[-1]["val_loss"])
            if best is None or rank > best[0]:
                best = rank, [p.detach().cpu().clone() for p in trained]
        with torch.no_grad():
            for parameter, value in zip(trained, best[1], strict=True):
                parameter.copy_(value)
        return rows

    def _epoch(self, chains, batch_size: int, optimizer, trained: list[nn.Parameter], generator) -> float:
        """The mean loss of one pass in a random order."""
        self._model.train()
        losses = []
        order = torch.randperm(len(chains), generator=generator).split(batch_size)
        bar = progress_bar("reward model")
        bar.reset(total=len(order))
        for numbers in order:
            batch = [chains[number] for number in numbers.tolist()]
            logits = self.logits([c.question for c in batch], [c.text for c in batch])
            right = torch.tensor([float(c.right) for c in batch], device=logits.device)
            loss = binary_cross_entropy_with_logits(logits, right)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            bar.update()
        return fmean(losses)

    def _validate(self, chains: Sequence[Chain]) -> dict[str, float]:
        """The share of questions whose best-liked chain is right, and the loss."""
        scores = self.score([c.question for c in chains], [c.text for c in chains])
        right = [c.right for c in chains]
        loss = binary_cross_entropy_with_logits(torch.tensor(scores), torch.tensor(right, dtype=torch.float))
        by_question = groupby(zip(chains, scores, strict=True), key=lambda pair: pair[0].question)
        chosen = [max(pairs, key=lambda pair: pair[1])[0] for _, pairs in by_question]
        return {"val_rerank": fmean(chain.right for chain in chosen), "val_loss": loss.item()}
