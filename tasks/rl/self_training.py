"""Self-training, ReFT's baselines (arXiv 2401.08967, section 4.2): imitate one's own right answers.

offline_st  what it began with samples `samples` answers to each train question; the right ones, at most `most_chains`
            different ones a question, join the gold ones, and SFT goes on from it on both.
online_st   every step samples from the policy as it is, and takes one supervised step on the right answers and the gold
            ones. No KL, no wrong answers, no baseline.

What is right, `tasks.rl.rewards.is_right` says: the answer, not what form and length earn beside it; online_st leaves
out what was cut off after it. Deviations: ReFT trains offline_st from the base model; both take `rft.steps` steps here.
The loss of online_st is at the sampling temperature, as that of every algorithm of the engine kshot.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from tasks.data.records import Question
from tasks.models import preflight, processes
from tasks.models.generate import answer, encode
from tasks.models.loading import tokenizer_of
from tasks.models.training import Job
from tasks.models.validation import Validation
from tasks.params import Rft
from tasks.rl import trainer
from tasks.rl.policy import Group, Policy
from tasks.rl.rewards import grade
from tasks.sft import fit

Pair = tuple[Question, str]


def different(texts: Sequence[str], known: Sequence[str], most: int) -> list[str]:
    """The first `most` texts that differ from each other and from the known ones by more than spacing and case."""
    seen, kept = {_form(text) for text in known}, []
    for text in texts:
        if len(kept) < most and _form(text) not in seen:
            kept.append(text)
            seen.add(_form(text))
    return kept


def right_samples(job: Job, model: PreTrainedModel) -> list[Pair]:
    """Right answers that the model samples itself, without those that are gold already or stand twice. `InvalidRewards`
    where too many cannot be graded: they are not wrong.
    """
    params, num = job.params, job.params.rft.self_training.samples
    asked = processes.own(job.train)
    texts = answer(
        model, job.processor, params.prompt, asked, job.pool, params.grade.batch_size,
        params.rft.max_completion_length, progress="samples", temperature=params.rft.temperature, samples=num,
        seed=job.seed,
    )  # fmt: skip
    asked = [question for question in asked for _ in range(num)]
    found, pairs = processes.gather(list(zip(texts, grade(job.grader, texts, asked)[1], strict=True))), []
    for n, question in enumerate(job.train):
        right = [text for text, is_right in found[n * num : (n + 1) * num] if is_right]
        kept = different(right, gold_texts(job, question), params.rft.self_training.most_chains)
        pairs += [(question, text) for text in kept]
    return pairs


def offline(job: Job) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """The model after the last step, the validation that knows the best weights, and the metrics of every step."""
    model, params = job.load(), job.params.rft
    preflight.check(job, model)
    pairs = job.gold_pairs() + right_samples(job, model)
    validation = job.validation(params.eval_steps, params.patience)
    steps = fit(job, model, pairs, params, params.steps, params.self_training.batch_size, validation)
    return model, validation, [{**row, "num_pairs": len(pairs)} for row in steps]


class OnlineSelfTraining:
    """What online_st does with the groups of a step; `gold` are tokens of gold answers by those of their prompt."""

    def __init__(self, policy: Policy, params: Rft, gold: dict[tuple[int, ...], list[torch.Tensor]]):
        self._gold, self.head, self.scorings = gold, None, 0
        self.state: dict[str, float] = {}
        self._learned: list[Group] = []

    def prepare(self, groups: Sequence[Group]) -> dict[str, float]:
        """Chooses what is learned from: every right completion once, and the gold ones, a mean over all of them."""
        chosen = [self._chosen(group) for group in groups]
        num = sum(processes.gather(list(map(len, chosen))))
        self._learned = []
        for group, completions in zip(groups, chosen, strict=True):
            if completions:
                weights = [torch.full((len(c),), 1 / (num * len(c)), device=c.device) for c in completions]
                self._learned.append(Group(group.prompt, completions, {"weights": torch.cat(weights)}))
        right = processes.gather_tokens(torch.cat([group.right for group in groups]))[0]
        return {"right": right.float().mean().item(), "num_pairs": num}

    def _chosen(self, group: Group) -> list[torch.Tensor]:
        right = [c for c, is_right in zip(group.completions, group.right.tolist(), strict=True) if is_right]
        gold = self._gold.get(tuple(group.prompt.input_ids.tolist()), [])
        return list({tuple(c.tolist()): c for c in [*gold, *right]}.values())

    def updates(self, groups: Sequence[Group], generator: torch.Generator) -> Iterator[list[Group]]:
        """One optimizer step, of a process without any group where another has some."""
        if processes.any_of(bool(self._learned)):
            yield self._learned

    def loss(
        self, logprobs: torch.Tensor, hidden: torch.Tensor, tokens: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The cross-entropy of these tokens; no metrics."""
        return -(logprobs * tokens["weights"]).sum(), {}


def online(job: Job) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """As `offline`, by the engine kshot."""
    gold = gold_tokens(job)
    return trainer.train(job, lambda policy, params: OnlineSelfTraining(policy, params, gold))


def gold_tokens(job: Job) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """{tokens of a prompt: those of each gold answer to it, with the end of turn}."""
    tokenizer, device = tokenizer_of(job.processor), "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for question in job.train:
        prompt = encode(job.processor, job.params.prompt, [question], job.pool)["input_ids"][0]
        texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in gold_texts(job, question)]
        answers = [torch.tensor([*ids, tokenizer.eos_token_id], device=device) for ids in texts]
        found.setdefault(tuple(prompt.tolist()), []).extend(answers)
    return found


def gold_texts(job: Job, question: Question) -> list[str]:
    """The gold answers as SFT teaches them: Qwen3's chat template writes thinking in a way of its own."""
    return [preflight.taught(job, question, text) for text in job.coordinates.write(question)]


def _form(text: str) -> str:
    return " ".join(text.casefold().split())
