"""GRPO by TRL's GRPOTrainer: the engine `trl`, the field's reference implementation.

A step is a rollout with its updates, as in the engine kshot. TRL counts its `num_iterations` updates one by one.
"""

import dataclasses
import tempfile
from math import ceil

from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer

from tasks.models import preflight, processes, zero
from tasks.models.generate import control_tokens
from tasks.models.training import Job
from tasks.models.trl import curves, make_options, make_rows
from tasks.models.validation import Validation
from tasks.rl.rewards import grade


class Rollouts(TrainerCallback):
    """Tells `validation` of rollouts, each of `updates` optimizer steps, and whether it has asked to stop."""

    def __init__(self, validation: Validation, updates: int):
        self._validation, self._updates, self.stopped = validation, updates, False

    def _counted(self, state: TrainerState) -> TrainerState:
        steps, most = state.global_step // self._updates, state.max_steps // self._updates
        return dataclasses.replace(state, global_step=steps, max_steps=most)

    def _tell(self, event: str, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        own = TrainerControl()
        getattr(self._validation, event)(args, self._counted(state), own, **kwargs)
        self.stopped |= own.should_training_stop
        control.should_training_stop |= own.should_training_stop

    def on_train_begin(self, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._tell("on_train_begin", args, state, control, **kwargs)

    def on_log(self, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._tell("on_log", args, state, control, **kwargs)

    def on_step_end(self, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if state.global_step % self._updates == 0:
            self._tell("on_step_end", args, state, control, **kwargs)


def make_trainer(job: Job, scratch: str, callbacks: list[TrainerCallback]) -> GRPOTrainer:
    """TRL's trainer of the job's initial weights; `scratch` is a folder for its own files."""
    params, model = job.params.rft, job.load()  # before the options of DeepSpeed, which would shard it as it is loaded

    def reward(completions: list, question: list[int], **_) -> list[float]:
        """Thin: THE grader on each completion (conversational: one assistant message)."""
        texts, questions = [c[0]["content"] for c in completions], [job.train[n] for n in question]
        return grade(job.grader, texts, questions)[0]

    updates = params.num_iterations
    options = make_options(job, params, params.steps * updates, scratch) | {"logging_steps": updates}
    config = GRPOConfig(
        **(options | zero.options(job)),
        warmup_steps=params.warmup_steps * updates,
        per_device_train_batch_size=params.prompts_per_step * params.num_generations // processes.world(),
        num_generations=params.num_generations,
        num_iterations=updates,
        beta=params.beta,
        epsilon=params.clip_low,
        epsilon_high=params.clip_high,
        temperature=params.temperature,
        max_completion_length=params.max_completion_length,
        loss_type=params.loss_type,
        scale_rewards="group" if params.scale_rewards else "none",
        generation_kwargs={"suppress_tokens": control_tokens(job.processor)},
    )
    # TRL leaves out what is too few for a step: with fewer questions than that, all of them
    numbers = [*range(len(job.train))] * ceil(params.prompts_per_step / len(job.train))
    rows = make_rows(job, [job.train[n] for n in numbers], question=numbers)
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
        told = Rollouts(validation, rft.num_iterations)
        trainer = make_trainer(job, scratch, [told])
        preflight.check(job, trainer.model)
        validation.whole = zero.whole(job, trainer)
        trainer.train()
    done = trainer.state.global_step // rft.num_iterations
    if done < rft.steps and not told.stopped:
        raise RuntimeError(f"TRL took {done} of {rft.steps} steps, and nothing asked it to stop; take rft.engine kshot")
    rows = [{**row, "step": row["step"] // rft.num_iterations} for row in curves(trainer.state.log_history)]
    return zero.restorable(job, trainer.model), validation, rows
