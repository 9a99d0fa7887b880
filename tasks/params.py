"""The schema of `params.yaml`: every key, its type and range. An unknown key or a bad value is refused before any work.

`params.yaml` is composed from `conf/` by `python -m flows.compose`; DVC tracks it section by section.
"""

from math import ceil
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from tasks.schema.base import Count, NonNegative, Positive, Section, Share
from tasks.schema.dataset import FileDataset
from tasks.schema.grid import ALGORITHMS, Grid
from tasks.schema.launch import Launch, shared_out
from tasks.schema.model import Model
from tasks.schema.reward import (
    ClassificationReward,
    DetectionReward,
    GroundingReward,
    JobReward,
    MathsReward,
    ProgramReward,
    RankingReward,
    Reward,
    RewardModel,
)
from tasks.schema.vllm import Vllm, goes_with_vllm

__all__ = ["ClassificationReward", "DetectionReward", "GroundingReward", "MathsReward", "Params", "ProgramReward"]
__all__ += ["ALGORITHMS", "Grid", "JobReward", "Model", "RankingReward", "Reward", "RewardModel"]

EMBEDDED_TASKS = ("detection", "open_vocabulary", "classification", "grounding")
WORD_TASKS = ("stories", "programs", "cases")


class DigitsDataset(Section):
    """The embedded handwritten digits, composed into scenes by `tasks.data.digits`. Sizes are in pictures.

    `task` says what the scenes are labelled for; in `open_vocabulary` a category is an ink and a digit, 'red seven'.
    `categories` and `test_categories` are those of a data set in files.
    """

    source: Literal["digits"]
    task: Literal[EMBEDDED_TASKS] = "detection"
    seed: int
    categories: list[str] | None = None
    test_categories: list[str] | None = None
    num_train: Count
    num_val: Count
    num_test: Count


class WordsDataset(Section):
    """The embedded problems in words, made by `tasks.data.words`: arithmetic stories to be solved by a chain or by a
    program, and case reports whose gene is to be found. A story has `num_steps` = [fewest, most] operations.
    """

    source: Literal["words"]
    task: Literal[WORD_TASKS]
    seed: int
    num_steps: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=2, max_length=2)]
    num_train: Count
    num_val: Count
    num_test: Count

    @model_validator(mode="after")
    def _fewest_first(self):
        if self.num_steps[0] > self.num_steps[1]:
            raise ValueError(f"num_steps is [fewest, most], not {self.num_steps}")
        return self


class Slice(Section):
    """`num_absent`: questions a train or val picture gets about categories that it does not show. `categories`: the
    base categories of an open-vocabulary study, all that train and val ask and name (null: every one of the pool).
    """

    num_absent: Annotated[int, Field(ge=0)] = 0
    allow_fewer: bool = False
    categories: list[str] | None = None


def _holds_asked(prompt: str) -> str:
    if "{asked}" not in prompt:
        raise ValueError("must hold {asked}, where the question's category or instruction is put")
    return prompt


Asking = Annotated[str, AfterValidator(_holds_asked)]


class Prompt(Section):
    """The user's turn for each task. {asked} becomes the question's category, instruction or problem; other braces
    stay. An imported job has no prompt: its conversations are sent as they are, after the system message `job` if any.
    `thinking` says whether the prompts ask for a think block before the answer: SFT's targets have one then, and the
    format reward wants it; without, neither has (of pictures only).
    """

    detection: Asking
    grounding: Asking
    classification: str
    maths: Asking | None = None
    program: Asking | None = None
    ranking: Asking | None = None
    job: str | None = None
    thinking: bool = True

    @model_validator(mode="after")
    def _words_are_thought_about(self):
        if not self.thinking and (
            given := [n for n in ("maths", "program", "ranking") if getattr(self, n) is not None]
        ):
            raise ValueError(f"thinking: false is for pictures; leave {', '.join(given)} out, or set thinking: true")
        return self


class Sft(Section):
    """`steps` batches, or as many as `epochs` passes over the slice take: one of the two, the other null. 0 steps give
    back the model that came in. Keeps the checkpoint that is best on val.
    """

    steps: Annotated[int, Field(ge=0)] | None
    epochs: Positive | None
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    eval_steps: Count

    @model_validator(mode="after")
    def _one_length(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give steps or epochs, and null for the other: {self.steps}, {self.epochs}")
        return self

    def num_steps(self, num_questions: int) -> int:
        """Optimizer steps on a slice of so many questions."""
        return self.steps if self.epochs is None else ceil(self.epochs * num_questions / self.batch_size)


class Ppo(Section):
    """What PPO has and GRPO has not. `beta` is the penalty of every token's log-ratio to the reference, `lam` is GAE's
    lambda; a rollout is learned from in `epochs` x `minibatches` optimizer steps. With a `target_kl`, `beta` is the
    first penalty, and each step moves it so that the KL goes there, by a fifth at most in `horizon` completions.
    """

    beta: NonNegative
    target_kl: Positive | None = None
    horizon: Count = 10_000
    gamma: Share
    lam: Share
    clip_value: Positive
    value_coef: Positive
    value_learning_rate: Positive
    epochs: Count
    minibatches: Count

    @model_validator(mode="after")
    def _target_has_a_reference(self):
        if self.target_kl is not None and not self.beta:
            raise ValueError(
                f"rft.ppo.target_kl {self.target_kl} needs rft.ppo.beta above 0, the first penalty: without, there is "
                "no reference to be near; or take target_kl null"
            )
        return self


class SelfTraining(Section):
    """ReFT's baselines. `offline_st` draws `samples` answers to each question and keeps `most_chains` different right
    ones; it is trained on `batch_size` answers a step.
    """

    samples: Count
    most_chains: Count
    batch_size: Count


class Rft(Section):
    """A step rolls out `num_generations` completions for each of `prompts_per_step` prompts. The learning rate rises
    for `warmup_steps`, then falls linearly. A forward pass of the engine `kshot` takes at most `micro_batch_tokens`
    where one group is not more. A step whose mean KL to the reference is above `max_kl` is the last (null: none is).
    More than one of `num_checkpoints`: so many of the best on val are kept beside the policy, as checkpoints/step-N.
    `vllm` samples the completions in the policy's place (null: it samples them itself).
    """

    engine: Literal["kshot", "trl"]
    steps: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    prompts_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: Count
    micro_batch_tokens: Count
    learning_rate: Positive
    weight_decay: NonNegative
    beta: NonNegative
    max_kl: Positive | None
    clip_low: Positive
    clip_high: Positive
    temperature: Positive
    max_completion_length: Count
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"]
    scale_rewards: bool
    eval_steps: Count
    patience: Count
    num_checkpoints: Count = 1
    vllm: Vllm | None = None
    ppo: Ppo
    self_training: SelfTraining

    @model_validator(mode="after")
    def _rises_before_it_falls(self):
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        return self


class Grade(Section):
    """`existence`: which categories a test picture is asked for: those it shows (`ground_truth`), every one (`all`), or
    those of which the base model states a box (`model`, as published: it caps every policy's recall). Of a maths or
    program problem, `samples` more completions are drawn at `temperature`, for the majority vote and pass@k. Validation
    grades `val_samples` answers to each question: one is greedy, several are sampled at `temperature`. `sam`, a hub id
    or a folder, turns boxes of grounding into masks (null: boxes alone are compared).
    """

    existence: Literal["ground_truth", "all", "model"]
    batch_size: Count
    max_new_tokens: Count
    val_samples: Count = 1
    samples: Annotated[int, Field(ge=0)] = 0
    temperature: Positive = 1.0
    sam: str | None = None


class Report(Section):
    """`resamples` of the bootstrap; `confidence` of the intervals. A study that can well miss a difference in mean
    reward of `relevant_difference` has too little data to say that none is shown. `published`: a table of a paper's
    figures (tasks/reporting/published.yaml) that stands beside the results.
    """

    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    relevant_difference: Annotated[float, Field(gt=0, lt=1)] = 0.05
    num_pictures: Count
    published: str | None = None


class Params(Section):
    study: str
    dataset: Annotated[DigitsDataset | WordsDataset | FileDataset, Field(discriminator="source")]
    slice: Slice
    model: Model
    prompt: Prompt
    warmup: Sft
    sft: Sft
    rft: Rft
    reward: Reward
    reward_model: RewardModel
    grade: Grade
    grid: Grid
    report: Report
    launch: Launch

    _shares = model_validator(mode="after")(shared_out)
    _vllm = model_validator(mode="after")(goes_with_vllm)

    @model_validator(mode="before")
    @classmethod
    def _with_init(cls, raw: dict) -> dict:
        grid = raw.get("grid")
        if not isinstance(grid, dict) or "init" in grid:
            return raw
        shared = raw.get("warmup") == raw.get("sft") and grid.get("matched", "data") == "data"
        return {**raw, "grid": {**grid, "init": "sft" if shared else "warmup"}}

    @model_validator(mode="after")
    def _init_is_what_it_says(self):
        shared = self.warmup == self.sft and self.grid.matched == "data"
        if self.grid.init != (right := "sft" if shared else "warmup"):
            raise ValueError(
                f"grid.init is {self.grid.init}: with grid.matched {self.grid.matched} and these warmup and sft it "
                f"must be {right}: python -m flows.compose writes it"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_the_algorithms(self):
        if self.rft.engine == "trl" and (ours := [a for a in self.grid.algorithm if a in ("ppo", "online_st")]):
            raise ValueError(f"rft.engine trl has no {ours[0]}: take rft.engine kshot, or grid.algorithm [grpo]")
        if self.rft.engine == "trl" and self.grid.matched != "data" and self.grid.algorithm[0] == "grpo":
            raise ValueError(
                f"grid.matched {self.grid.matched} needs what GRPO spends, which rft.engine trl does not count: take "
                "rft.engine kshot, or grid.matched data"
            )
        if self.rft.engine == "kshot" and self.model.attention != "sdpa":
            raise ValueError(
                f"model.attention {self.model.attention}: the engine kshot shares prefixes by an attention of its own, "
                "over sdpa: take model.attention sdpa, or rft.engine trl"
            )
        return self

    @model_validator(mode="after")
    def _rerank_has_samples(self):
        if self.grid.rerank and not self.grade.samples:
            raise ValueError("grid.rerank chooses among samples: set grade.samples above 0 (ReFT: 100)")
        return self

    @model_validator(mode="after")
    def _max_kl_has_a_reference(self):
        betas = {"grpo": ("rft.beta", self.rft.beta), "ppo": ("rft.ppo.beta", self.rft.ppo.beta)}
        for name, beta in (betas[algorithm] for algorithm in self.grid.algorithm if algorithm in betas):
            if self.rft.max_kl is not None and not beta:
                raise ValueError(f"rft.max_kl needs {name} above 0: without, there is no reference to be far from")
        return self


class ParamsError(ValueError):
    """A params.yaml that cannot be used; the message names each key."""


def validate(raw: dict, origin: str) -> Params:
    """`Params` from a nested dict, or a `ParamsError` naming `origin`, each bad key and what is wrong with it."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ParamsError("\n".join([f"{origin}: {len(lines)} bad value(s)", *lines])) from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The validated parameters of this study."""
    return validate(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
