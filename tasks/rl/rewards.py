"""Rewards of completions by THE grader. A reward that is none (the grader raised, NaN, inf, a judge or a sandbox that
is down) is masked and counted. Each process grades its own completions; the metrics are of all.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Real
from statistics import fmean, pstdev

from tasks.data.records import Question
from tasks.graders.batch import grade_all, stop_if_invalid
from tasks.graders.jobs import job_metrics, stop_if_broken
from tasks.graders.rubric import Grade
from tasks.models import processes

RIGHT = 0.5


def _alone(grader: Callable, text: str, question: Question) -> object:
    try:
        return grader(text, question)
    except Exception as error:  # whatever a grader does wrong is data here; too much of it stops the run
        return error


def _each(grader: Callable, texts: Sequence[str], questions: Sequence[Question]) -> list:
    """A grade of each completion, or the exception that came instead."""
    try:
        return grade_all(grader, texts, questions)
    except Exception:  # which completion's it is shows one by one
        return [_alone(grader, *one) for one in zip(texts, questions, strict=True)]


def _fault(grade: object) -> str | None:
    """Why a grade is no reward, its kind first: `nan: a reward of nan`."""
    if isinstance(grade, Exception):
        return f"{type(grade).__name__}: {grade}"
    reward = getattr(grade, "reward", grade)
    if not isinstance(reward, Real):
        return f"type: a reward of {reward!r}"
    kind = "nan" if math.isnan(reward) else "inf"
    return grade.invalid or (None if math.isfinite(reward) else f"{kind}: a reward of {reward}")


def is_right(grade: Grade) -> bool:
    """Whether an answer may be imitated as right, whatever else its reward pays for: all of `answer` (a number, letter
    or result, the first of a ranking) or of `label`; boxes with an `iou` above RIGHT; of a job, a reward above it.
    """
    for name in ("answer", "label"):
        if name in grade.sub_rewards:
            return grade.sub_rewards[name] == 1
    return grade.sub_rewards.get("iou", grade.reward) > RIGHT


def grade(
    grader: Callable, texts: Sequence[str], questions: Sequence[Question]
) -> tuple[list[float], list[bool], dict[str, float]]:
    """Rewards, NaN where invalid; which answers are right; and metrics: of each sub-reward `reward_<name>` and its
    spread over the completions, `reward_<name>_std`; the shares `failed_<kind>`, `invalid` and `invalid_<kind>`; for
    an imported job `job_metrics`.

    Raises `InvalidRewards` when more than 5 % are invalid, or a grader of a job fails on nearly all.
    """
    own = [(grade, _fault(grade)) for grade in _each(grader, texts, questions)]
    rewards = [math.nan if fault else grade.reward for grade, fault in own]
    right = [not fault and is_right(grade) for grade, fault in own]
    # an exception may not pickle, and is told by its fault
    graded = processes.gather([(None if isinstance(grade, Exception) else grade, fault) for grade, fault in own])
    texts = processes.gather(texts)
    invalid = [fault for _, fault in graded if fault is not None]
    stop_if_invalid(grader, invalid, len(texts))
    grades = [grade for grade, fault in graded if fault is None]
    metrics = {}
    for name in grades[0].sub_rewards:
        values = [g.sub_rewards[name] for g in grades]
        metrics |= {f"reward_{name}": fmean(values), f"reward_{name}_std": pstdev(values)}
    failures = Counter(g.failure for g in grades if g.failure)
    metrics |= {f"failed_{kind}": num / len(texts) for kind, num in sorted(failures.items())}
    kinds = Counter(fault.partition(":")[0] for fault in invalid)
    metrics |= {f"invalid_{kind}": num / len(texts) for kind, num in sorted(kinds.items())}
    if of_jobs := [(text, g.job) for text, (g, _) in zip(texts, graded, strict=True) if getattr(g, "job", None)]:
        stop_if_broken([job for _, job in of_jobs])
        metrics |= job_metrics(*zip(*of_jobs, strict=True))
    return rewards, right, {**metrics, "invalid": len(invalid) / len(texts)}
