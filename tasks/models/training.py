"""What the training stages share: their inputs, the validation score, and the folder they leave behind."""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from tasks.data.records import Question, read_questions, write_jsonl
from tasks.graders import make_grader
from tasks.graders.batch import grade_all, stop_if_invalid
from tasks.graders.jobs import job_metrics, part_names, split_reasoning
from tasks.graders.sandbox import isolations
from tasks.models import processes
from tasks.models.adapters import learning, save_learned, save_weights
from tasks.models.budget import Budget, Matched
from tasks.models.card import model_card
from tasks.models.coordinates import Coordinates
from tasks.models.events import events
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor, tokenizer_of
from tasks.models.validation import Validation
from tasks.params import ALGORITHMS, Params


def arguments(description: str) -> argparse.ArgumentParser:
    """The paths and the seed that every training stage takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--slice", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser


@dataclass
class Job:
    """One training run: a policy at a grid point. `init` is a trained folder, or None for the base model.

    SFT, and RFT by our engine, leave their state in `checkpoints`, and go on from there; without, they begin anew. They
    count what they use in `budget`; TRL's GRPO does not. SFT spends what `matched` says, where it is given.
    """

    params: Params
    policy: str
    pool: Path
    slice: Path
    init: Path | None
    seed: int
    checkpoints: Path | None = None
    began: float = field(default_factory=time.time)
    budget: Budget | None = None
    matched: Matched | None = None

    def __post_init__(self):
        self.train: list[Question] = read_questions(self.slice / "train.jsonl")
        self.val: list[Question] = read_questions(self.slice / "val.jsonl")
        self.processor: ProcessorMixin = load_processor(self.params.model, self.init)
        convention, thinking = self.params.model.coordinates, self.params.prompt.thinking
        self.coordinates = Coordinates(convention, self.processor, self.pool, self.params.reward, thinking)
        self.grader = self.coordinates.reading(make_grader(self.params.reward, thinking))

    def load(self) -> PreTrainedModel | PeftModel:
        """The initial weights with what is to learn, a fresh adapter where the parameters ask for one."""
        params = self.params.model
        model = load_model(params, self.init, quantize=bool(params.lora and params.lora.quantize))
        torch.manual_seed(self.seed)
        return learning(model, params)

    def validation(
        self, every: int, patience: int | None = None, max_kl: float | None = None, keep: int = 1
    ) -> Validation:
        return Validation(self.policy, self._score, every, patience, max_kl, keep)

    def _score(self, model: PreTrainedModel) -> dict[str, float]:
        """The mean `reward` on val of the answers that could be graded; of an imported job, what its events tell too.
        `InvalidRewards` where too many could not.
        """
        began, grade = time.perf_counter(), self.params.grade
        num, asked = grade.val_samples, processes.own(self.val)
        texts = answer(
            model, self.processor, self.params.prompt, asked, self.pool, grade.batch_size, grade.max_new_tokens,
            temperature=grade.temperature if num > 1 else 0.0, samples=num, seed=self.seed,
        )  # fmt: skip
        questions = [question for question in asked for _ in range(num)]
        grades = processes.gather(grade_all(self.grader, texts, questions))
        texts = processes.gather(texts)
        stop_if_invalid(self.grader, [g.invalid for g in grades if g.invalid], len(grades))
        valid = [g for g in grades if not g.invalid]
        row = {"reward": fmean(g.reward for g in valid)}  # exact: equal answers in another order are no better
        if all(g.job for g in grades):
            row |= {f"reward_{name}": fmean(g.sub_rewards[name] for g in valid) for name in valid[0].sub_rewards}
            row |= job_metrics(texts, [g.job for g in grades]) | {"reasoning_tokens": self.reasoning_tokens(texts)}
            row["seconds"] = time.perf_counter() - began
        return row

    def reasoning_tokens(self, texts: Sequence[str]) -> float:
        """Mean number of tokens of the thinking in completions of a job."""
        thoughts = [split_reasoning(text)[0] for text in texts]
        return fmean(map(len, tokenizer_of(self.processor)(thoughts, add_special_tokens=False)["input_ids"]))

    def gold_pairs(self) -> list[tuple[Question, str]]:
        """Each train question with each of its gold answers, in the model's units: what SFT is taught."""
        return [(question, text) for question in self.train for text in self.coordinates.write(question)]

    def save(self, model: PreTrainedModel, out: Path, validation: Validation | None, steps: list[dict]) -> None:
        """A plain Hugging Face folder with the best weights (of an adapter, as model.lora.output says), history.json
        with what `steps` tell, a model card, of an imported job events.jsonl, and checkpoints/step-N where several were
        kept (with LoRA, the adapter). Of several processes, process 0 writes it.
        """
        if processes.rank():
            return
        budget = {"budget": self.budget.row(model)} if self.budget else {}
        out.mkdir(parents=True)
        if validation is not None:
            self._save_checkpoints(model, out / "checkpoints", validation)
            validation.restore(model)
        save_weights(model, self.params.model, self.init, out)
        self.processor.save_pretrained(out)
        manifest = json.loads((self.slice / "manifest.json").read_text())
        history = {
            "policy": self.policy,
            "k": manifest["k"],
            "seed": self.seed,
            "seconds": round(time.time() - self.began, 1),
            "best_step": validation.best_step if validation else 0,
            "num_labelled": manifest["train"]["num_pictures"],
            "train_sha256": manifest["train"]["sha256"],
            "model": self.params.model.model_dump(),
            "prompt": self.params.prompt.model_dump(),
            "isolation": isolations(),  # of the sandboxes that programs and python graders ran in
            **budget,
            "steps": steps,
            "val": validation.curve if validation else [],
        }
        (out / "history.json").write_text(json.dumps(history, indent=1) + "\n")
        if self.params.reward.job and any("num_graded" in row for row in steps):
            names = part_names(self.params.reward.job.grader)
            write_jsonl(out / "events.jsonl", events(names, steps, history["val"], self.began))
        origin, sees = self.init or self.params.model.path, isinstance(self.processor, ProcessorMixin)
        card = model_card(self.params.model, origin, history, self.command(out), sees)
        (out / "README.md").write_text(card, encoding="utf-8")

    def command(self, out: Path) -> str:
        """What is typed to train `out` as this job does."""
        rft = ["rft", "--algorithm", self.policy, "--init", str(self.init)]
        stage, *words = rft if self.policy in ALGORITHMS else [self.policy]
        if m := self.matched:
            words += ["--matched", m.mode, "--warmup", str(m.warmup), "--rft", str(m.rft)]
        words += ["--pool", str(self.pool), "--slice", str(self.slice), "--seed", str(self.seed), "--out", str(out)]
        return shlex.join(["python", "-m", f"tasks.{stage}", *words])

    def _save_checkpoints(self, model: PreTrainedModel, folder: Path, validation: Validation) -> None:
        """Each of the best, where more than one is kept: a folder that a model can be loaded from."""
        for place, best in enumerate(validation.best if validation.keep > 1 else ()):
            validation.restore(model, place)
            save_learned(model, self.init, folder / f"step-{best.step}")
            self.processor.save_pretrained(folder / f"step-{best.step}")
