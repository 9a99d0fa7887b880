"""GRPO by TRL's GRPOTrainer: the engine `trl`, the field's reference implementation."""

import tempfile

from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tasks.models import preflight, processes, zero
from tasks.models.generate import control_tokens
from tasks.models.training import Job
from tasks.models.trl import curves, make_options, make_rows
from tasks.models.validation import Validation
from tasks.rl.rewards import grade


def make_trainer(job: Job, scratch: str, callbacks: list[TrainerCallback]) -> GRPOTrainer:
    """TRL's trainer of the job's initial weights; `scratch` is a folder for its own files."""
    params, model = job.params.rft, job.load()  # before the options of DeepSpeed, which would shard it as it is loaded

    def reward(completions: list, question: list[int], **_) -> list[float]:
        """Thin: THE grader on each completion (conversational: one assistant message)."""
        texts, questions = [c[0]["content"] for c in completions], [job.train[n] for n in question]
        return grade(job.grader, texts, questions)[0]

    config = GRPOConfig(
        **(make_options(job, params, params.steps, scratch) | zero.options(job)),
        warmup_steps=params.warmup_steps,
        per_device_train_batch_size=params.prompts_per_step * params.num_generations // processes.world(),
        num_generations=params.num_generations,
        num_iterations=params.num_iterations,
        beta=params.beta,
        epsilon=params.clip_low,
        epsilon_high=params.clip_high,
        temperature=params.temperature,
        max_completion_length=params.max_completion_length,
        loss_type=params.loss_type,
        scale_rewards="group" if params.scale_rewards else "none",
        generation_kwargs={"suppress_tokens": control_tokens(job.processor)},
    )
    rows = make_rows(job, job.train, question=list(range(len(job.train))))
    trainer = GRPOTrainer(
        model, reward, config, train_dataset=rows, processing_class=job.processor, callbacks=callbacks
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(job: Job) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """The model after the last step, the validation that knows the best weights, and the metrics of every step."""
    rft = job.params.rft
    validation = job.validation(rft.eval_steps, rft.patience, rft.max_kl, rft.num_checkpoints)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(job, scratch, [validation])
        preflight.check(job, trainer.model)
        validation.whole = zero.whole(job, trainer)
        trainer.train()
    return zero.restorable(job, trainer.model), validation, curves(trainer.state.log_history)
