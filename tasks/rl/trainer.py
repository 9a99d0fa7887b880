"""The engine `kshot`: roll out, grade, update; one optimizer step a time over groups that share their prefixes.

A plain loop. Algorithms (`grpo`, `ppo`) say what the tokens of a step are worth and what the loss is; they share the
rollout, the micro-batches, the pictures and the optimizer. Dropout is off, so that the log-probabilities of the rollout
are those of the first update. Several processes (`tasks.launch`) make the steps of one: each draws the numbers of the
whole step, takes its part of the prompts, and gets the gradient of all.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache, partial

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerControl, TrainerState

from tasks.models import pause, processes
from tasks.models.budget import Budget
from tasks.models.checkpoint import Checkpoints, write_state
from tasks.models.generate import control_tokens, encode
from tasks.models.loading import tokenizer_of
from tasks.models.prefix import use_prefix_attention
from tasks.models.prompts import Prompt, make_prompt
from tasks.models.rollout import Rollout, Sampling, roll_out
from tasks.models.training import Job
from tasks.models.validation import Validation
from tasks.rl import preflight, sharding
from tasks.rl.policy import Group, Policy, get_tokens, micro_batches
from tasks.rl.rewards import grade
from tasks.rl.vllm import Vllm, correct

STATE = "state.pt"
MAX_GRAD_NORM = 1.0


class Sampler:
    """Question numbers in a new random order every epoch, without end: each comes as often as any other."""

    def __init__(self, num: int, generator: torch.Generator):
        self._num, self._generator = num, generator
        self.waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        while len(self.waiting) < count:
            self.waiting += torch.randperm(self._num, generator=self._generator).tolist()
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


class Trainer:
    """One training run of `job` by an algorithm, made of the policy and the section `rft`."""

    def __init__(self, job: Job, make_algorithm: Callable):
        if job.params.model.dtype == "float16":
            raise ValueError("model.dtype float16: the engine kshot has no loss scaling; take bfloat16 or float32")
        self.job, self.params = job, job.params.rft
        job.budget = Budget()
        self.model = job.load()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.policy = Policy(self.model, self.params.temperature)
        use_prefix_attention(self.policy.base)
        if self.policy.dtype == torch.bfloat16:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.algorithm = make_algorithm(self.policy, self.params)
        self.sharded = job.params.launch.backend == "fsdp"
        if self.sharded:
            sharding.shard(self.policy.base)
        self.generator = torch.Generator().manual_seed(job.seed)
        self.sampler = Sampler(len(job.train), self.generator)
        self._optimize()
        self.vllm = Vllm(job, self.model) if self.params.vllm else None
        self.prompt = lru_cache(256)(self._prompt)
        tokenizer = tokenizer_of(job.processor)
        self.sampling = Sampling(
            self.params.num_generations,
            self.params.max_completion_length,
            self.params.temperature,
            tokenizer.eos_token_id,
            tuple(control_tokens(job.processor)),
        )
        self.state, self.control = TrainerState(max_steps=self.params.steps), TrainerControl()
        self.logs: list[dict[str, float]] = []

    def _optimize(self) -> None:
        head = list(self.algorithm.head.parameters()) if self.algorithm.head else []
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        rate, decay = self.params.learning_rate, self.params.weight_decay
        parts = [
            {"params": [p for p in self.trained if p.ndim > 1], "weight_decay": decay, "highest": rate},
            {"params": [p for p in self.trained if p.ndim < 2], "weight_decay": 0.0, "highest": rate},
            {"params": head, "weight_decay": 0.0, "highest": self.params.ppo.value_learning_rate},
        ]
        parts = [{**part, "params": own} for part in parts for own in sharding.alike(part["params"])]
        self.optimizer = torch.optim.AdamW(parts, fused=True)
        self.trained += head

    def rate(self, step: int) -> float:
        """Share of the highest learning rate: rises over `warmup_steps`, then falls to 0 (transformers' `linear`)."""
        warmup, steps = self.params.warmup_steps, self.params.steps
        return step / warmup if step < warmup else (steps - step) / (steps - warmup)

    def _prompt(self, number: int) -> Prompt:
        question = self.job.train[number]
        encoded = encode(self.job.processor, self.job.params.prompt, [question], self.job.pool)
        return make_prompt(self.policy.base, encoded, picture=question.image)

    def train(self, validation: Validation) -> None:
        """To the last step or until `validation` stops it; from the job's checkpoint where there is one. `Paused` after
        the step in which somebody asked for it.
        """
        if self.job.checkpoints is None:
            return self._train(validation, None)
        with pause.listening():
            return self._train(validation, Checkpoints(self.job.checkpoints, self.job))

    def _train(self, validation: Validation, checkpoints: Checkpoints | None) -> None:
        folder = checkpoints.newest() if checkpoints else None
        if folder is None:
            with sharding.whole(self.model):
                preflight.check(self.policy, self.job, self.prompt(0))
        else:
            # processes that share a machine read the pages of one file, and hold no state whole
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=True)
            self.load_state_dict(state, validation)
        with sharding.whole(self.model):
            validation.on_train_begin(None, self.state, self.control, model=self.model)
        while self.state.global_step < self.params.steps and not self.control.should_training_stop:
            began = time.perf_counter()
            metrics = self.step()
            self.state.global_step += 1
            seconds = time.perf_counter() - began
            metrics |= {"seconds": seconds, "tokens_per_second": metrics["completion_tokens"] / seconds}
            self.logs.append({"step": self.state.global_step, **metrics})
            validation.on_log(None, self.state, self.control, metrics)
            with sharding.whole(self.model):
                validation.on_step_end(None, self.state, self.control, model=self.model)
            if checkpoints:
                self._keep(checkpoints, validation)

    def _keep(self, checkpoints: Checkpoints, validation: Validation) -> None:
        """Save where a validation, the time or a pause asks for it; all processes alike."""
        step, pausing = self.state.global_step, processes.any_of(pause.requested())
        if pausing or step % validation.every == 0 or checkpoints.overdue():
            state = self.state_dict(validation)
            checkpoints.save(step, lambda folder: write_state(state, folder / STATE))
        if pausing:
            raise pause.Paused(f"paused after step {step}: the same command goes on from there")

    def state_dict(self, validation: Validation) -> dict:
        """All that the next step depends on. Between steps there is no rollout to keep; the reference is the start. It
        is whole, so that another number of processes can go on, in process 0, which writes it.
        """
        full = partial(sharding.full, wanted=processes.rank() == 0)
        optimizer = [self.optimizer.state.get(p, {}) for p in self.trained]
        return {
            "step": self.state.global_step,
            "stop": self.control.should_training_stop,
            "weights": [full(p) for p in self.trained],
            "optimizer": [{name: full(value) for name, value in own.items()} for own in optimizer],
            "generator": self.generator.get_state(),
            "waiting": self.sampler.waiting,
            "algorithm": self.algorithm.state,
            "logs": self.logs,
            "validation": validation.state_dict(),
            "seconds": time.time() - self.job.began,
            "budget": asdict(self.job.budget),
        }

    def load_state_dict(self, state: dict, validation: Validation) -> None:
        self.state.global_step, self.control.should_training_stop = state["step"], state["stop"]
        with torch.no_grad():
            for parameter, value in zip(self.trained, state["weights"], strict=True):
                parameter.copy_(sharding.like(parameter, value))
        for parameter, own in zip(self.trained, state["optimizer"], strict=True):
            if own:
                self.optimizer.state[parameter] = {name: sharding.like(parameter, value) for name, value in own.items()}
        self.generator.set_state(state["generator"])
        self.sampler.waiting, self.logs = state["waiting"], state["logs"]
        self.algorithm.state.update(state["algorithm"])
        validation.load_state_dict(state["validation"])
        self.job.began = time.time() - state["seconds"]
        self.job.budget = Budget(**state["budget"])

    def step(self) -> dict[str, float]:
        """One rollout and its updates; the metrics of it."""
        marks = [time.perf_counter()]
        numbers = processes.own(self.sampler.take(self.params.prompts_per_step))
        prompts = [self.prompt(number) for number in numbers]
        with sharding.whole(self.model):
            rollout = self.roll_out(prompts)
            marks.append(time.perf_counter())
            groups, metrics = self.grade(numbers, prompts, rollout)
            marks.append(time.perf_counter())
            metrics |= self.algorithm.prepare(groups)
        if self.vllm:
            metrics |= correct(groups, self.params.vllm.max_importance)
        metrics |= self.update(self.algorithm.updates(groups, self.generator), groups[0])
        marks.append(time.perf_counter())
        names = ("seconds_rollout", "seconds_grade", "seconds_update")
        return metrics | {name: marks[n + 1] - marks[n] for n, name in enumerate(names)}

    def roll_out(self, prompts: Sequence[Prompt]) -> Rollout:
        self.model.train()  # half-precision models recompute activations, which the first update needs, only then
        with self.policy.precision():
            self.policy.pictures.encode(prompts)
            self.model.eval()
            if self.vllm:
                return self.vllm.roll_out(self.policy, prompts, self.sampling, self.generator)
            return roll_out(
                self.policy.base, self.policy.head, prompts, self.policy.pictures, self.sampling, self.generator
            )

    def grade(
        self, numbers: Sequence[int], prompts: Sequence[Prompt], rollout: Rollout
    ) -> tuple[list[Group], dict[str, float]]:
        texts = tokenizer_of(self.job.processor).batch_decode(rollout.completions, skip_special_tokens=True)
        each = self.params.num_generations
        questions = [self.job.train[number] for number in numbers for _ in range(each)]
        rewards, right, metrics = grade(self.job.grader, texts, questions)
        if "num_graded" in metrics:
            metrics["reasoning_tokens"] = self.job.reasoning_tokens(processes.gather(texts))
        rewards, right = (torch.tensor(values).view(len(prompts), each) for values in (rewards, right))
        right &= rollout.ended.view_as(right).to(right.device)  # to imitate what was cut off teaches rambling
        groups = []
        for n, prompt in enumerate(prompts):
            own = slice(n * each, (n + 1) * each)
            tokens = {"old_logprobs": torch.cat(rollout.logprobs[own])}
            if rollout.sampled:
                tokens["sampled"] = torch.cat(rollout.sampled[own])
            groups.append(Group(prompt, rollout.completions[own], tokens, rewards[n], right[n]))
        return groups, metrics | self._told(prompts, rollout, rewards)

    def _told(self, prompts: Sequence[Prompt], rollout: Rollout, rewards: torch.Tensor) -> dict[str, float]:
        """Metrics of the rollout of all processes from the prompts, completions and rewards (B, G) of this one."""
        rewards, _ = processes.gather_tokens(rewards)
        lengths, _ = processes.gather_tokens(torch.tensor([len(completion) for completion in rollout.completions]))
        budget, num_completion = self.job.budget, int(lengths.sum())
        num_prompt = sum(processes.gather([len(prompt.input_ids) for prompt in prompts]))
        budget.prompt_tokens_sampled += num_prompt
        budget.completion_tokens_sampled += num_completion
        scorings = self.algorithm.scorings + (self.vllm is not None)  # what vLLM sampled, the policy scores
        budget.tokens_scored += scorings * (num_prompt + num_completion)
        valid = rewards.isfinite()
        spread = [row[keep].std().item() if keep.sum() > 1 else 0.0 for row, keep in zip(rewards, valid, strict=True)]
        return {
            "reward": rewards[valid].mean().item(),
            "reward_std": sum(spread) / len(spread),
            "entropy": processes.gather_tokens(torch.cat(rollout.entropy))[0].mean().item(),
            "completion_length": lengths.float().mean().item(),
            "completion_tokens": lengths.sum().item(),
            "truncated": 1 - processes.gather_tokens(rollout.ended)[0].float().mean().item(),
        }

    def update(self, updates: Iterator[list[Group]], idle: Group) -> dict[str, float]:
        """The optimizer steps of one rollout; their metrics are means over tokens, the loss is the mean over steps.
        Nothing is learned from `idle`, which is passed while sharded layers need a process that has no group left.
        """
        idle = Group(idle.prompt, idle.completions, {**idle.tokens, "weights": idle.tokens["old_logprobs"] * 0})
        self.model.train()
        for part in self.optimizer.param_groups:
            part["lr"] = part["highest"] * self.rate(self.state.global_step)
        totals: dict[str, float] = {"loss": 0.0, "tokens": 0, "prompt_tokens": 0}
        grad_norm, num_updates = 0.0, 0
        for groups in updates:
            with self.policy.precision():
                # for the first update, the features of the rollout still hold
                if num_updates:
                    passed = [*groups, idle] if self.sharded else groups
                    self.policy.pictures.encode([group.prompt for group in passed])
            batches = list(micro_batches(groups, self.params.micro_batch_tokens))
            owed = sharding.passes_owed(self.model, len(batches))
            for batch in batches:
                for name, value in self._backward(batch).items():
                    totals[name] = totals.get(name, 0.0) + float(value)
            for _ in range(owed):
                self._backward([idle])
            self.policy.pictures.backward()
            sharding.sum_gradients(self.trained)
            grad_norm += sharding.clip_gradients(self.trained, MAX_GRAD_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()
            num_updates += 1
            totals["prompt_tokens"] += sum(len(group.prompt.input_ids) for group in groups)
        totals = processes.total(totals)
        num_tokens, prompt_tokens = totals.pop("tokens"), totals.pop("prompt_tokens")
        self.job.budget.gradient_steps += num_updates
        self.job.budget.prompt_tokens_trained += prompt_tokens
        self.job.budget.completion_tokens_trained += num_tokens
        means = {name: value / max(1, num_tokens) for name, value in totals.items()}
        means |= {"loss": totals["loss"] / max(1, num_updates), "grad_norm": grad_norm / max(1, num_updates)}
        return {**means, "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _backward(self, batch: list[Group]) -> dict[str, float | torch.Tensor]:
        """Adds to the gradients; the loss and the metrics, summed over the tokens, and how many these are."""
        logprobs, hidden = self.policy.score(batch)
        tokens = {name: get_tokens(batch, name) for name in batch[0].tokens}
        loss, metrics = self.algorithm.loss(logprobs, hidden, tokens)
        loss.backward()
        return {"tokens": len(logprobs), "loss": loss.detach(), **metrics}


def train(job: Job, make_algorithm: Callable) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """The model after the last step, the validation that knows the best weights, and the metrics of every step."""
    trainer = Trainer(job, make_algorithm)
    rft = job.params.rft
    validation = job.validation(rft.eval_steps, rft.patience, rft.max_kl, rft.num_checkpoints)
    trainer.train(validation)
    # validation restores the weights that are kept, to a model that is whole
    return job.load() if trainer.sharded else trainer.model, validation, trainer.logs
