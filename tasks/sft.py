"""Stages `warmup` and `sft`: supervised fine-tuning on a slice with TRL's SFTTrainer.

`python -m tasks.sft --pool data/pool --slice data/slice/4-0 --seed 0 --out policies/sft-4-0` (`tasks.warmup`: the
short one that RFT starts from, same code, the section `warmup` of params.yaml). The loss is on the completion only;
the target is the gold answer with confidence 1 and, as thinking, the names of all that the picture shows. The weights
kept are those that do best on val by the same grader that RFT is rewarded by.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PrinterCallback
from trl import SFTConfig, SFTTrainer

from tasks.data.records import Question
from tasks.models import preflight
from tasks.models.training import Job, curves
from tasks.models.validation import Validation
from tasks.params import Params, Rft, Sft, load_params


def train(job: Job, params: Sft, out: Path) -> None:
    """Supervised steps from the job's initial weights; writes the model folder `out`."""
    pairs = [(question, text) for question in job.train for text in job.coordinates.write(question)]
    model, steps = job.load(), params.num_steps(len(pairs))
    if steps == 0:
        job.save(model, out, None, [])
        return
    if not pairs:
        raise ValueError(f"{job.slice / 'train.jsonl'}: no worked solution to teach; give `chains`, or 0 steps")
    preflight.check(job, model)
    validation = job.validation(params.eval_steps)
    logs = fit(job, model, pairs, params, steps, params.batch_size, validation)
    job.save(model, out, validation, logs)


def fit(
    job: Job, model: PreTrainedModel, pairs: Sequence[tuple[Question, str]], params: Sft | Rft, steps: int,
    batch_size: int, validation: Validation,
) -> list[dict]:  # fmt: skip
    """`steps` supervised batches of questions and answers; the metrics of each."""
    rows = job.rows([q for q, _ in pairs], completion=[[{"role": "assistant", "content": text}] for _, text in pairs])
    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(
            **job.trainer_options(params, steps, scratch),
            per_device_train_batch_size=batch_size,
            max_length=None,
        )
        trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=job.processor, callbacks=[validation])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
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
    args = arguments(__doc__).parse_args()
    params: Params = load_params()
    train(Job(params, policy, args.pool, args.slice, None, args.seed), getattr(params, policy), args.out)


if __name__ == "__main__":
    main()
