"""Stages `warmup` and `sft`: supervised fine-tuning on a slice with TRL's SFTTrainer.

`python -m tasks.sft --pool data/pool --slice data/slice/4-0 --seed 0 --out policies/sft-4-0` (`tasks.warmup`: the
short one that RFT starts from, same code, the section `warmup` of params.yaml). The loss is on the completion only;
the target is the gold answer with confidence 1 and, as thinking, the names of all that the picture shows. The weights
kept are those that do best on val by the same grader that RFT is rewarded by.

`--matched flops --warmup policies/warmup-4-0 --rft policies/grpo-4-0` (stage `sft_matched`, grid.matched) trains for as
many steps as the FLOPs of that RFT run pay for; `--matched steps`, for as many as it took. What RFT spends is known
only when it has been spent (`tasks.models.budget.Matched`), so this stage waits for it, where `sft` need not.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from tasks.data.records import Question
from tasks.models import preflight
from tasks.models.budget import Budget, Matched
from tasks.models.checkpoint import ROOT, Checkpoints
from tasks.models.generate import encode
from tasks.models.loading import tokenizer_of
from tasks.models.training import Job, curves
from tasks.models.validation import Validation
from tasks.params import Params, Rft, Sft, load_params

OWN = "run.pt"  # what the Trainer knows nothing of


class Resuming(TrainerCallback):
    """Takes each checkpoint that transformers' Trainer wrote, with the state that is ours, to the job's `checkpoints`:
    the Trainer's own folder may be half written when a run is killed, and it would fail on it for good.
    """

    def __init__(self, job: Job, validation: Validation):
        self._job, self._validation = job, validation
        self._checkpoints = Checkpoints(job.checkpoints, job)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"

        def write(folder: Path) -> None:
            shutil.copytree(written, folder, dirs_exist_ok=True)
            own = {"validation": self._validation.state_dict(), "budget": asdict(self._job.budget)}
            torch.save({**own, "seconds": time.time() - self._job.began}, folder / OWN)

        self._checkpoints.save(state.global_step, write)
        shutil.rmtree(written)

    def begun(self) -> str | None:
        """The folder to go on from, with our state loaded; None at the beginning."""
        folder = self._checkpoints.newest()
        if folder is None:
            return None
        own = torch.load(folder / OWN, weights_only=True)
        self._validation.load_state_dict(own["validation"])
        self._job.budget = Budget(**own["budget"])
        self._job.began = time.time() - own["seconds"]
        return str(folder)


def train(job: Job, params: Sft, out: Path) -> None:
    """Supervised steps from the job's initial weights, or on from its checkpoint; writes the model folder `out`."""
    pairs = job.gold_pairs()
    model, steps = job.load(), params.num_steps(len(pairs))
    if steps == 0:
        job.save(model, out, None, [])
        return
    if not pairs:
        raise ValueError(f"{job.slice / 'train.jsonl'}: no worked solution to teach; give `chains`, or 0 steps")
    preflight.check(job, model)
    if job.matched:
        steps = job.matched.num_steps(model, num_tokens(job, pairs), params.batch_size)
    validation = job.validation(params.eval_steps)
    logs = fit(job, model, pairs, params, steps, params.batch_size, validation)
    job.save(model, out, validation, logs)


def num_tokens(job: Job, pairs: Sequence[tuple[Question, str]]) -> list[int]:
    """Tokens of each question, its picture's among them, with its answer and the end of turn (and without what
    a chat template may write after that: a newline).
    """
    tokenizer, prompts = tokenizer_of(job.processor), {}
    for question, _ in pairs:
        if id(question) not in prompts:
            encoded = encode(job.processor, job.params.prompt, [question], job.pool)
            prompts[id(question)] = encoded["input_ids"].shape[1]
    answers = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"]
    return [prompts[id(question)] + len(ids) + 1 for (question, _), ids in zip(pairs, answers, strict=True)]


def fit(
    job: Job, model: PreTrainedModel, pairs: Sequence[tuple[Question, str]], params: Sft | Rft, steps: int,
    batch_size: int, validation: Validation,
) -> list[dict]:  # fmt: skip
    """`steps` supervised batches of questions and answers, or on from the job's checkpoint; the metrics of each."""
    rows = job.rows([q for q, _ in pairs], completion=[[{"role": "assistant", "content": text}] for _, text in pairs])
    job.budget = Budget()
    with tempfile.TemporaryDirectory() as scratch:
        options = job.trainer_options(params, steps, scratch)
        callbacks, begun = [validation], None
        if job.checkpoints:
            resuming = Resuming(job, validation)
            callbacks, begun = [validation, resuming], resuming.begun()
            options |= {"save_strategy": "steps", "save_steps": params.eval_steps}
        config = SFTConfig(**options, per_device_train_batch_size=batch_size, max_length=None)
        trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=job.processor, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        job.budget.watch(model)
        trainer.train(resume_from_checkpoint=begun)
    return curves(trainer.state.log_history)


def arguments(description: str) -> argparse.ArgumentParser:
    """The paths and the seed that every training stage takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--slice", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(policy: str = "sft") -> None:
    parser = arguments(__doc__)
    if policy == "sft":
        parser.add_argument("--matched", choices=("steps", "flops"), help="spend what the run in --rft spent")
        parser.add_argument("--warmup", type=Path, help="the folder that --rft began with")
        parser.add_argument("--rft", type=Path)
    args = parser.parse_args()
    params: Params = load_params()
    job = Job(params, policy, args.pool, args.slice, None, args.seed, ROOT)
    if getattr(args, "matched", None):
        job.matched = Matched(args.matched, args.warmup, args.rft)
    train(job, getattr(params, policy), args.out)
    Checkpoints(ROOT, job).clear()


if __name__ == "__main__":
    main()
