"""Validation while training: the grader's mean reward on the slice's val questions, the best weights kept, early
stopping, and an alarm where train and val part.

SFT and RFT choose by this one callback, so that neither gets a better chance than the other; RFT alone has patience,
which saves time and changes nothing of what SFT may keep. The test split is not seen here.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import fmean

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tasks.progress import progress_bar

MOST_GAP = 0.2  # mean reward of train minus that of val


def trainable(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Best:
    """Weights of a step that are among the best on val."""

    step: int
    reward: float
    weights: dict[str, torch.Tensor]


def _told(best: list[Best]) -> list[dict]:
    return [vars(one) for one in best]


def _best(told: list[dict]) -> list[Best]:
    """Copies: what is told may lie in a checkpoint that will be removed."""
    return [Best(one["step"], one["reward"], {n: p.clone() for n, p in one["weights"].items()}) for one in told]


class Validation(TrainerCallback):
    """Scores the model before the first step, every `every` steps and after the last; `patience` checks without a new
    best stop, and so does a step whose KL to the reference is above `max_kl`. That KL is of the weights that the step
    began with: neither these nor what the step made of them are among the best.

    `score` gives the `reward` of a model, and what else its row of `curve` is to hold: [{"step", "reward"}, ...].
    `best` are the `keep` best, the earlier of two that are equal first; `restore` puts the best weights back (they wait
    in main memory). `name` stands before the progress that it shows. `whole(model)` is entered where weights are read.
    """

    def __init__(
        self,
        name: str,
        score: Callable[[PreTrainedModel], dict[str, float]],
        every: int,
        patience: int | None = None,
        max_kl: float | None = None,
        keep: int = 1,
    ):
        self.score, self.every, self.patience, self.max_kl, self.keep = score, every, patience, max_kl, keep
        self.bar = progress_bar(name)
        self.whole: Callable[[PreTrainedModel], AbstractContextManager] = nullcontext
        self.curve: list[dict[str, float]] = []
        self.best: list[Best] = []
        self._before: list[tuple[int, list[Best]]] = []  # with `max_kl`: of the last two checks, step and best before
        self._too_far = False
        self._train_rewards: list[float] = []  # of the steps since the last check
        self._alarmed = False
        self._shown: dict[str, str] = {}  # beside the bar

    @property
    def best_step(self) -> int:
        return self.best[0].step if self.best else 0

    def _check(self, model: PreTrainedModel, step: int) -> None:
        with self.whole(model):
            self._check_whole(model, step)

    def _check_whole(self, model: PreTrainedModel, step: int) -> None:
        scored = self.score(model)
        reward = scored["reward"]
        self._shown["val_reward"] = f"{reward:.3f}"
        self.bar.set_postfix(self._shown)
        self.curve.append({"step": step, **scored})
        if self.max_kl is not None:
            self._before = [*self._before, (step, self.best)][-2:]
        if len(self.best) < self.keep or reward > self.best[-1].reward:
            weights = {name: p.detach().cpu().clone() for name, p in trainable(model).items()}
            self.best = sorted([*self.best, Best(step, reward, weights)], key=lambda b: -b.reward)[: self.keep]
        self._alarm(reward, step)
        self._train_rewards = []

    def _alarm(self, reward: float, step: int) -> None:
        if not self._train_rewards or self._alarmed or fmean(self._train_rewards) - reward <= MOST_GAP:
            return
        self._alarmed = True
        warnings.warn(
            f"step {step}: the reward on train is {fmean(self._train_rewards):.3f}, on val {reward:.3f}: the policy "
            "learns the train questions by heart, or finds what only they reward; take more pictures (grid.k), fewer "
            "steps or a higher beta",
            stacklevel=2,
        )

    def on_train_begin(self, args, state: TrainerState, control: TrainerControl, model=None, **kwargs):
        self.bar.reset(total=state.max_steps)
        self.bar.update(state.global_step)
        if not self.curve:  # else it goes on
            self._check(model, state.global_step)

    def on_log(
        self, args: TrainingArguments | None, state: TrainerState, control: TrainerControl, logs: dict, **kwargs
    ) -> TrainerControl:
        """The metrics of a step."""
        if "reward" in logs:
            self._train_rewards.append(logs["reward"])
            self._shown["reward"] = f"{logs['reward']:.3f}"
            self.bar.set_postfix(self._shown, refresh=False)
        if self.max_kl is not None and not logs.get("kl", 0.0) <= self.max_kl:  # NaN too
            warnings.warn(
                f"stops at step {state.global_step}: the KL to the reference is {logs['kl']:.3g}, above rft.max_kl "
                f"{self.max_kl}; the best weights so far are kept",
                stacklevel=2,
            )
            control.should_training_stop = self._too_far = True
            first = max(1, state.global_step - 1)  # too far; where logs follow the check, this step's was made
            self.best = next((best for step, best in self._before if step >= first), self.best)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model=None, **kwargs
    ) -> TrainerControl:
        self.bar.update()
        if self._too_far:
            return control
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._check(model, state.global_step)
            checks_since_best = sum(point["step"] > self.best_step for point in self.curve)
            control.should_training_stop |= self.patience is not None and checks_since_best >= self.patience
        return control

    def state_dict(self) -> dict:
        """All that it knows, so that a run that is cut off can go on."""
        return {
            "curve": self.curve,
            "best": _told(self.best),
            "before": [(step, _told(best)) for step, best in self._before],
            "train_rewards": self._train_rewards,
            "alarmed": self._alarmed,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on: from the next start of a training."""
        self.curve, self.best = state["curve"], _best(state["best"])
        self._before = [(step, _best(best)) for step, best in state["before"]]
        self._train_rewards, self._alarmed = state["train_rewards"], state["alarmed"]

    def restore(self, model: PreTrainedModel, place: int = 0) -> None:
        """The weights at this place of `best`."""
        with torch.no_grad():
            for name, p in trainable(model).items():
                p.copy_(self.best[place].weights[name])
