"""Stages `warmup` and `sft`: supervised fine-tuning on a slice with TRL's SFTTrainer.

`python -m tasks.sft --pool data/pool --slice data/slice/4-0 --seed 0 --out policies/sft-4-0` (`tasks.warmup`: what
RFT starts from where its settings are not SFT's; same code, the section `warmup` of params.yaml). The loss is on the
completion only; the target is the gold answer with confidence 1 and, as thinking, the names of all that the picture
shows. The weights kept are those that do best on val by the same grader that RFT is rewarded by. Several processes
(`tasks.launch`: accelerate's DDP, or DeepSpeed) go through the batches of one, and each takes its part of every batch.

`--matched flops --warmup policies/warmup-4-0 --rft policies/grpo-4-0` (stage `sft_matched`, grid.matched) trains for as
many steps as the FLOPs of that RFT run pay for; `--matched steps`, for as many as it took. What RFT spends is known
only when it has been spent (`tasks.models.budget.Matched`), so this stage waits for it, where `sft` need not.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from tasks import launch
from tasks.data.records import Question
from tasks.models import preflight, processes, zero
from tasks.models.budget import Budget, Matched
from tasks.models.checkpoint import ROOT, Checkpoints, write_state
from tasks.models.generate import encode
from tasks.models.loading import tokenizer_of
from tasks.models.training import Job, arguments
from tasks.models.trl import curves, make_options, make_rows
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
        own = {"validation": self._validation.state_dict(), "budget": asdict(self._job.budget.of_all())}

        def write(folder: Path) -> None:
            shutil.copytree(written, folder, dirs_exist_ok=True)
            write_state({**own, "seconds": time.time() - self._job.began}, folder / OWN)

        self._checkpoints.save(state.global_step, write)  # of_all: every process has written its files
        if processes.rank() == 0:
            shutil.rmtree(written)

    def begun(self) -> str | None:
        """The folder to go on from, with our state loaded; None at the beginning."""
        folder = self._checkpoints.newest()
        if folder is None:
            return None
        own = torch.load(folder / OWN, weights_only=True)
        self._validation.load_state_dict(own["validation"])
        if processes.rank() == 0:  # the others count from here on
            self._job.budget = Budget(**own["budget"])
        self._job.began = time.time() - own["seconds"]
        return str(folder)


class Shared(SFTTrainer):
    """Every process goes through the batches of one process, of which `share` takes its rows: accelerate's own way of
    sharing out would fill up the last batch of an epoch with rows of the first.
    """

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        if processes.world() > 1:
            batches = loader.batch_sampler
            batches.num_processes, batches.process_index, batches.even_batches = 1, 0, False
        return loader

    def _get_num_items_in_batch(self, batch_samples: list[dict], device: torch.device) -> torch.Tensor | None:
        """What the loss is a mean over: tokens of all processes, where the Trainer would take a mean of their means."""
        if processes.world() == 1:
            return super()._get_num_items_in_batch(batch_samples, device)
        num = sum(int((batch["labels"] != -100).sum()) for batch in batch_samples)
        return torch.tensor(sum(processes.gather([num])), device=device)


def share(collate: Callable[[list], dict]) -> Callable[[list], dict]:
    """`collate` of this process's part of the rows; of none, a row that teaches nothing, so that it takes part."""

    def collate_own(rows: list) -> dict:
        if own := processes.own(rows):
            return collate(own)
        batch = collate(rows[:1])
        return {**batch, "labels": torch.full_like(batch["labels"], -100)}

    return collate_own


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for the Trainer's files: one for all processes, where each of them writes."""
    with tempfile.TemporaryDirectory() as scratch:
        yield processes.of_main(scratch)
        processes.wait()


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
    job.save(zero.restorable(job, model), out, validation, logs)


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
    if job.params.launch.backend == "fsdp":
        print("launch.backend fsdp: supervised steps run as with ddp, the model whole in each process", file=sys.stderr)
    rows = make_rows(
        job, [q for q, _ in pairs], completion=[[{"role": "assistant", "content": text}] for _, text in pairs]
    )
    job.budget = Budget()
    with scratch_folder() as scratch:
        options = make_options(job, params, steps, scratch) | zero.options(job)
        callbacks, begun = [validation], None
        if job.checkpoints:
            resuming = Resuming(job, validation)
            callbacks, begun = [validation, resuming], resuming.begun()
            options |= {"save_strategy": "steps", "save_steps": params.eval_steps}
        config = SFTConfig(**options, per_device_train_batch_size=batch_size, max_length=None)
        trainer = Shared(model, config, train_dataset=rows, processing_class=job.processor, callbacks=callbacks)
        trainer.data_collator = share(trainer.data_collator)
        trainer.remove_callback(PrinterCallback)
        validation.whole = zero.whole(job, trainer)
        job.budget.watch(model)
        trainer.train(resume_from_checkpoint=begun)
    job.budget = job.budget.of_all()
    return curves(trainer.state.log_history)


def main(policy: str = "sft") -> None:
    parser = arguments(__doc__)
    if policy == "sft":
        parser.add_argument("--matched", choices=("steps", "flops"), help="spend what the run in --rft spent")
        parser.add_argument("--warmup", type=Path, help="the folder that --rft began with")
        parser.add_argument("--rft", type=Path)
    args = parser.parse_args()
    params: Params = load_params()
    with launch.joined(params.launch, f"tasks.{policy}"):
        job = Job(params, policy, args.pool, args.slice, None, args.seed, ROOT)
        if getattr(args, "matched", None):
            job.matched = Matched(args.matched, args.warmup, args.rft)
        train(job, getattr(params, policy), args.out)
        Checkpoints(ROOT, job).clear()


if __name__ == "__main__":
    main()
