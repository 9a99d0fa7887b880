"""The sections `reward` (a rubric for each task) and `reward_model` of `params.yaml`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from tasks.schema.base import Count, NonNegative, Positive, Section, Share

Isolation = Literal["auto", "landlock", "bubblewrap"]  # docs/sandbox.md


class Rubric(Section):
    """Weights of a task's graders, normalised to sum 1: 0 shows a grader and pays nothing, null leaves it out.

    `length` is 1 up to `max_characters` of completion and 0 from twice as many. A rubric of pictures may hold
    `published` graders too ({name: weight}), to compare with: they can be hacked (`tasks.graders.published`).
    """

    format: NonNegative
    length: NonNegative | None = None
    max_characters: Count = 2000

    GRADERS: ClassVar[tuple[str, ...]]  # in the order in which they are shown

    @property
    def weights(self) -> dict[str, float]:
        """{name: weight} of the graders that are not left out; a published one is named published/<name>."""
        published = {f"published/{name}": weight for name, weight in getattr(self, "published", {}).items()}
        return {name: weight for name in self.GRADERS if (weight := getattr(self, name)) is not None} | published

    @model_validator(mode="after")
    def _some_weight(self):
        if sum(self.weights.values()) <= 0:
            raise ValueError(f"at least one of {', '.join(self.GRADERS)} must be above 0")
        return self


class DetectionReward(Rubric):
    """`iou_threshold` is the least overlap of a match (exclusive)."""

    iou: NonNegative
    confidence: NonNegative
    iou_threshold: Share
    published: dict[Literal["iou_matched", "equation_6", "confidence", "map", "od_length", "format"], NonNegative] = (
        Field(default_factory=dict)
    )

    GRADERS = ("iou", "confidence", "format", "length")


class ClassificationReward(Rubric):
    """`label` is strict equality; `count` is for labels that are numbers, `choice` for letters of multiple choice.

    `aliases`: {label: other spellings that count as it}.
    """

    label: NonNegative
    count: NonNegative | None = None
    choice: NonNegative | None = None
    aliases: dict[str, list[str]] = Field(default_factory=dict)
    published: dict[Literal["lenient", "format"], NonNegative] = Field(default_factory=dict)

    GRADERS = ("label", "count", "choice", "format", "length")


class GroundingReward(Rubric):
    """`giou` is GIoU scaled to 0..1: it pays a part for a box that is near the right one.

    It also pays about 0.5 for the whole picture, more than a model that is less than half sure gets for its best guess
    (`benchmarks/hack_search.py`), so `iou` is the default.
    """

    iou: NonNegative
    giou: NonNegative | None = None
    published: dict[Literal["giou", "format"], NonNegative] = Field(default_factory=dict)

    GRADERS = ("iou", "giou", "format", "length")


class AnswerReward(Rubric):
    """`answer` is 1 for the right number or letter, `partial` for another number (ReFT: 0.1), never for another letter,
    else 0. A whole gold number is met within `absolute_tolerance`, any other within the share `relative_tolerance`, or
    where one of the two is the other, rounded to three digits or more (not where that share is 0).
    """

    answer: NonNegative
    partial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    absolute_tolerance: NonNegative = 0.01
    relative_tolerance: Share = 1e-4

    GRADERS = ("answer", "format", "length")


class MathsReward(AnswerReward):
    """`form`: where the answer stands: inside `<answer>`, or after the last 'Therefore, the answer is:' or '####'. With
    `check_steps` a right answer earns nothing after an equation that does not hold.
    """

    form: Literal["tags", "sentence"] = "tags"
    check_steps: bool = False


class ProgramReward(AnswerReward):
    """A program may take `seconds` and `memory_mb` in the sandbox, which has this `isolation`."""

    seconds: Positive = 2.0
    memory_mb: Annotated[int, Field(ge=64)] = 512
    isolation: Isolation = "auto"


class RankingReward(Rubric):
    """`answer` is scores[rank - 1] of the right name, `later` for a rank beyond, 0 where it is not in the list. A list
    of more than `max_names` earns nothing. `aliases`: {name: other names that count as it}.
    """

    answer: NonNegative
    scores: Annotated[list[Share], Field(min_length=1)] = Field(default=[1.0, 0.7, 0.5, 0.3, 0.2])
    later: Share = 0.1
    max_names: Count = 10
    aliases: dict[str, list[str]] = Field(default_factory=dict)

    GRADERS = ("answer", "format", "length")

    @model_validator(mode="after")
    def _earlier_is_better(self):
        scale = [*self.scores, self.later]
        if scale != sorted(scale, reverse=True):
            raise ValueError(f"scores, then later, must not rise with the rank: {scale}")
        return self


class JobReward(Section):
    """A grader of OpenAI's, as its JSON stands in a fine-tuning job: `tasks.graders.jobs` reads it, and refuses a bad
    one when a stage makes its grader. Rewards are what it pays, in 0..1 or not.

    With a `response_format` an answer that is not JSON of its schema earns nothing. Model graders ask `judge_url`, or
    OPENAI_BASE_URL where that is null, with OPENAI_API_KEY: `judge_concurrency` requests at once, each answered within
    `judge_timeout` seconds. `judge_cache` is a file of replies, so that equal requests are asked once across runs
    (null: once a run). Python graders run in a sandbox of this `isolation`. `target` is the template of the answer that
    SFT is taught (null: nobody knows it).
    """

    grader: dict[str, JsonValue]
    response_format: dict[str, JsonValue] | None = None
    judge_url: str | None = None
    judge_timeout: Positive = 60.0
    judge_concurrency: Count = 8
    judge_cache: str | None = None
    isolation: Isolation = "auto"
    target: str | None = None


class Reward(Section):
    """A rubric for each task that is graded; `job` is that of an imported job."""

    detection: DetectionReward | None = None
    classification: ClassificationReward | None = None
    grounding: GroundingReward | None = None
    maths: MathsReward | None = None
    program: ProgramReward | None = None
    ranking: RankingReward | None = None
    job: JobReward | None = None


class RewardModel(Section):
    """ReFT's, which chooses among a policy's samples (`grid.rerank`): `samples` answers of what RFT began with to each
    train question, learned from `epochs` times in batches of `batch_size`.
    """

    samples: Annotated[int, Field(ge=2)]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
