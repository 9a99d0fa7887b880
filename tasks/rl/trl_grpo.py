"""GRPO by TRL's GRPOTrainer: the engine `trl`, the field's reference implementation."""

import tempfile

from transformers import PreTrainedModel, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from tasks.models.generate import control_tokens
from tasks.models.training import Job
from tasks.models.validation import Validation


def train(job: Job) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """The model after the last step, the validation that knows the best weights, and the log of every step."""
    params = job.params.rft

    def reward(completions: list, question: list[int], **_) -> list[float]:
        """Thin: THE grader on each completion (conversational: one assistant message)."""
        return [job.grader(c[0]["content"], job.train[n]).reward for c, n in zip(completions, question, strict=True)]

    rows = job.rows(question=list(range(len(job.train))))
    model = job.load()
    validation = job.validation(params.eval_steps, params.patience)
    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(
            **job.trainer_options(params, scratch),
            per_device_train_batch_size=params.prompts_per_step * params.num_generations,
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
        trainer = GRPOTrainer(
            model, reward, config, train_dataset=rows, processing_class=job.processor, callbacks=[validation]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model, validation, trainer.state.log_history
