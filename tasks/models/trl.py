"""What SFT and the engine `trl` share: the rows and the options that TRL's trainers take, and what they log."""

from collections.abc import Sequence

import torch
from datasets import Dataset, Image

from tasks.data.questions import conversation, fill
from tasks.data.records import Question
from tasks.models.training import Job
from tasks.params import Rft, Sft

# transformers' and TRL's names of what is kept of a step -> ours
CURVES = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "truncated",
    "frac_reward_zero_std": "zero_variance",
    "clip_ratio/region_mean": "clip_fraction",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


def curves(log_history: list[dict]) -> list[dict]:
    """The steps of a transformers Trainer's log, under our names."""
    return [
        {"step": row["step"], **{ours: row[theirs] for theirs, ours in CURVES.items() if theirs in row}}
        for row in log_history
        if "loss" in row
    ]


def make_rows(job: Job, questions: Sequence[Question], **columns: list) -> Dataset:
    """Train questions as TRL takes them: `prompt`, the given columns, and `image` (decoded on access) of pictures.

    Raises ValueError for pictures and problems in one slice, which TRL cannot hold in one table.
    """
    prompt = job.params.prompt
    prompts = [
        conversation(prompt, q) if q.turns else [{"role": "user", "content": fill(prompt, q)}] for q in questions
    ]
    rows = Dataset.from_dict({"prompt": prompts, **columns})
    images = [str(job.pool / q.image) for q in questions if q.image is not None]
    if len(images) not in (0, len(questions)):
        raise ValueError(f"{job.slice}: {len(images)} of {len(questions)} questions have a picture; give all or none")
    return rows.add_column("image", images).cast_column("image", Image()) if images else rows


def make_options(job: Job, params: Sft | Rft, steps: int, scratch: str) -> dict:
    """What SFT and RFT tell transformers' Trainer alike, so that the comparison is fair."""
    computing = job.params.model.computing
    return {
        "output_dir": scratch,
        "max_steps": steps,
        "learning_rate": params.learning_rate,
        "weight_decay": params.weight_decay,
        "lr_scheduler_type": "linear",
        "gradient_checkpointing": None,  # TRL's default is the deprecated name of the next one
        "activation_checkpointing": computing != "float32",
        "bf16": computing == "bfloat16",
        "fp16": computing == "float16",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "seed": job.seed,
        "disable_tqdm": True,  # the validation callback has its own bar
        "use_cpu": not torch.cuda.is_available(),  # else accelerate sees no processes without a GPU
    }
