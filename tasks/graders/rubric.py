"""The grader: parser, sub-rewards and weights in one function. Reward in RFT, score in validation and in grading."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.data.records import Box, Question
from tasks.graders.detection import Match, confidence_reward, iou_reward, match
from tasks.graders.parse import Failure, Parsed, parse_detection
from tasks.params import Reward


@dataclass(frozen=True)
class Grade:
    """`reward` and each of `sub_rewards` (iou, confidence, format) are in 0..1.

    `failure` is the first thing that went wrong, None for an answer with something right in the form asked for. `boxes`
    (thousandths) and `confidences` are in the order of the answer, both empty when it could not be read.
    """

    reward: float
    sub_rewards: dict[str, float]
    failure: Failure | None
    boxes: tuple[Box, ...]
    confidences: tuple[float, ...]


def make_grader(reward: Reward) -> Callable[[str, Question], Grade]:
    """A function of a completion and its question. The sub-rewards are weighted by `reward`, normalised to sum 1.

    An answer that cannot be read earns 0 in all of them.
    """
    weights = {"iou": reward.iou, "confidence": reward.confidence, "format": reward.format}

    def grade(completion: str, question: Question) -> Grade:
        parsed = parse_detection(completion)
        matches = match(parsed.boxes, question.boxes, reward.iou_threshold)
        sub_rewards = _sub_rewards(parsed, matches, len(question.boxes))
        return Grade(
            # Both sums run in the same order, so that three ones give exactly 1.
            reward=sum(weights[name] * sub_rewards[name] for name in weights) / sum(weights.values()),
            sub_rewards=sub_rewards,
            failure=_failure(parsed, matches, len(question.boxes)),
            boxes=tuple(b.box for b in parsed.boxes),
            confidences=tuple(b.confidence for b in parsed.boxes),
        )

    return grade


def _sub_rewards(parsed: Parsed, matches: tuple[Match, ...], num_gold: int) -> dict[str, float]:
    if parsed.failure:
        return {"iou": 0.0, "confidence": 0.0, "format": 0.0}
    return {
        "iou": iou_reward(matches, num_gold),
        "confidence": confidence_reward(matches, num_gold),
        "format": float(parsed.well_formed),
    }


def _failure(parsed: Parsed, matches: tuple[Match, ...], num_gold: int) -> Failure | None:
    if parsed.failure:
        return parsed.failure
    if matches and num_gold == 0:
        return Failure.HALLUCINATED
    if num_gold and not matches:
        return Failure.OMITTED
    if matches and not any(m.iou for m in matches):
        return Failure.NO_MATCH
    return None if parsed.well_formed else Failure.BAD_FORMAT
