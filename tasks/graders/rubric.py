"""The grader: parser, sub-rewards and weights in one function. Reward in RFT, score in validation and in grading.

Each task has its rubric: named graders, each in 0..1, weighted by its section of `conf/reward/`. One that is null is
left out; one that weighs 0 is shown and pays nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.data.records import Box, Question
from tasks.graders.boxes import giou, iou
from tasks.graders.detection import confidence_reward, iou_reward, match
from tasks.graders.frame import Failure
from tasks.graders.grounding import parse_grounding
from tasks.graders.labels import alias_table, choice_reward, count_reward, label_reward, parse_label
from tasks.graders.parse import parse_detection
from tasks.params import ClassificationReward, DetectionReward, GroundingReward, Reward


@dataclass(frozen=True)
class Grade:
    """`reward` and each of `sub_rewards` (the names that the task's rubric holds) are in 0..1.

    `failure` is the first thing that went wrong, None for an answer with something right in the form asked for. `boxes`
    (thousandths) and `confidences` (detection) are in the order of the answer, `label` is the text that was stated; all
    are empty when it could not be read.
    """

    reward: float
    sub_rewards: dict[str, float]
    failure: Failure | None
    boxes: tuple[Box, ...] = ()
    confidences: tuple[float, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class Judged:
    """An answer before weighting. `scores` are functions, so that only what the rubric holds is computed.

    `wrong` says what is wrong with an answer that could be read, `well_formed` whether it has the form asked for.
    """

    failure: Failure | None = None
    scores: dict[str, Callable[[], float]] | None = None
    wrong: Failure | None = None
    well_formed: bool = False
    boxes: tuple[Box, ...] = ()
    confidences: tuple[float, ...] = ()
    label: str | None = None


Judge = Callable[[str, Question], Judged]


def make_grader(reward: Reward) -> Callable[[str, Question], Grade]:
    """A function of a completion and its question, whatever its task. Weights are normalised to sum 1.

    An answer that cannot be read earns 0 in all of the rubric. Raises ValueError for a question of a task without a
    rubric, and for one without the gold answer that its task needs.
    """
    rubrics = {task: rubric for task in JUDGES if (rubric := getattr(reward, task))}
    judges = {task: JUDGES[task](rubric) for task, rubric in rubrics.items()}

    def grade(completion: str, question: Question) -> Grade:
        if question.task not in rubrics:
            raise ValueError(f"no rubric for {question.task}; give reward.{question.task}")
        rubric, judged = rubrics[question.task], judges[question.task](completion, question)
        weights, sub_rewards = rubric.weights, {name: 0.0 for name in rubric.weights}
        failure = judged.failure
        if judged.scores is not None:
            length = length_reward(len(completion), rubric.max_characters)
            scores = {**judged.scores, "format": lambda: float(judged.well_formed), "length": lambda: length}
            sub_rewards = {name: scores[name]() for name in weights}
            failure = judged.wrong or _blemish(judged, sub_rewards)
        return Grade(
            # Both sums run in the same order, so that three ones give exactly 1.
            reward=sum(weights[name] * sub_rewards[name] for name in weights) / sum(weights.values()),
            sub_rewards=sub_rewards,
            failure=failure,
            boxes=judged.boxes,
            confidences=judged.confidences,
            label=judged.label,
        )

    return grade


def length_reward(num_characters: int, max_characters: int) -> float:
    """1 up to `max_characters`, then falling evenly to 0 at twice as many (DAPO, arXiv 2503.14476, eq. 13, as 0..1)."""
    return min(1.0, max(0.0, 2 - num_characters / max_characters))


def _blemish(judged: Judged, sub_rewards: dict[str, float]) -> Failure | None:
    if not judged.well_formed:
        return Failure.BAD_FORMAT
    return Failure.OVER_LENGTH if sub_rewards.get("length") == 0 else None


def _detection(rubric: DetectionReward) -> Judge:
    def judge(completion: str, question: Question) -> Judged:
        parsed, num_gold = parse_detection(completion), len(question.boxes)
        if parsed.failure:
            return Judged(parsed.failure)
        matches = match(parsed.boxes, question.boxes, rubric.iou_threshold)
        wrong = None
        if matches and not any(m.iou for m in matches):
            wrong = Failure.NO_MATCH if num_gold else Failure.HALLUCINATED
        elif num_gold and not matches:
            wrong = Failure.OMITTED
        return Judged(
            scores={
                "iou": lambda: iou_reward(matches, num_gold),
                "confidence": lambda: confidence_reward(matches, num_gold),
            },
            wrong=wrong,
            well_formed=parsed.well_formed,
            boxes=tuple(b.box for b in parsed.boxes),
            confidences=tuple(b.confidence for b in parsed.boxes),
        )

    return judge


def _classification(rubric: ClassificationReward) -> Judge:
    aliases = alias_table(rubric.aliases)

    def judge(completion: str, question: Question) -> Judged:
        gold, parsed = question.label, parse_label(completion)
        if gold is None:
            raise ValueError(f"{question.record_id}: a classification question without a label")
        if parsed.failure:
            return Judged(parsed.failure)
        scores = {
            "label": lambda: label_reward(parsed.label, gold, aliases),
            "count": lambda: count_reward(parsed.label, gold),
            "choice": lambda: choice_reward(parsed.label, gold),
        }
        right = any(scores[name]() for name in scores if name in rubric.weights)
        return Judged(
            scores=scores,
            wrong=None if right else Failure.WRONG_LABEL,
            well_formed=parsed.well_formed,
            label=parsed.label,
        )

    return judge


def _grounding(rubric: GroundingReward) -> Judge:
    def judge(completion: str, question: Question) -> Judged:
        if len(question.boxes) != 1:
            raise ValueError(f"{question.record_id}: a grounding question with {len(question.boxes)} boxes, not one")
        (gold,), parsed = question.boxes, parse_grounding(completion)
        if parsed.failure:
            return Judged(parsed.failure)
        overlap = iou(parsed.box, gold)
        return Judged(
            scores={"iou": lambda: overlap, "giou": lambda: (1 + giou(parsed.box, gold)) / 2},
            wrong=None if overlap else Failure.NO_MATCH,
            well_formed=parsed.well_formed,
            boxes=(parsed.box,),
        )

    return judge


JUDGES = {"detection": _detection, "classification": _classification, "grounding": _grounding}
