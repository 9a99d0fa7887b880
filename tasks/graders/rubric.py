"""The grader: parser, sub-rewards and weights in one function. Reward in RFT, score in validation and in grading.

Each task has its rubric: named graders, each in 0..1, weighted by its section of `conf/reward/`. One that is null is
left out; one that weighs 0 is shown and pays nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.data.records import Box, Question
from tasks.graders.batch import Batched, GradeAll
from tasks.graders.frame import Failure
from tasks.graders.jobs import JobGrader, why_down
from tasks.graders.judges import JUDGES, Judged
from tasks.graders.openai import Failure as OpenAIFailure
from tasks.graders.openai import OpenAIGrade
from tasks.graders.published import graders_of
from tasks.params import Reward
from tasks.schema.reward import Rubric


@dataclass(frozen=True)
class Grade:
    """`reward` and each of `sub_rewards` (the names that the task's rubric holds) are in 0..1; those of an imported job
    (graders/<name>) are what its graders pay.

    `failure` is the first thing that went wrong, None for an answer with something right in the form asked for. `boxes`
    (thousandths) and `confidences` (detection) are in the order of the answer, `label` is the text that was stated (of
    a program: its result), `rank` the place of the right name in a ranking, from 1; all are empty when it could not be
    read. `job` is the whole grade of a job's grader, `invalid` why nobody could grade: a judge or a sandbox is down.
    Such a reward is 0, and no ground for anything.
    """

    reward: float
    sub_rewards: dict[str, float]
    failure: Failure | OpenAIFailure | None
    boxes: tuple[Box, ...] = ()
    confidences: tuple[float, ...] = ()
    label: str | None = None
    rank: int | None = None
    job: OpenAIGrade | None = None
    invalid: str | None = None


def make_grader(reward: Reward, thinking: bool = True) -> Batched:
    """A function of a completion and its question, whatever its task. Weights are normalised to sum 1. `thinking` is
    that of the prompt: whether the form asked for begins with a think block.

    An answer that cannot be read earns 0 in all of the rubric, but for what is `published`. Raises ValueError for a
    question of a task without a rubric, and for one without the gold answer that its task needs.
    """
    rubrics = {task: rubric for task in JUDGES if (rubric := getattr(reward, task))}
    graders = {task: _by_rubric(task, rubric, thinking) for task, rubric in rubrics.items()}
    if reward.job is not None:
        of_jobs = JobGrader(reward.job)
        graders["job"] = lambda completions, questions: list(map(_of_job, of_jobs(completions, questions)))

    def grade_all(completions: Sequence[str], questions: Sequence[Question]) -> list[Grade]:
        found: dict[int, Grade] = {}
        for task in dict.fromkeys(question.task for question in questions):
            if task not in graders:
                raise ValueError(f"no rubric for {task}; give reward.{task}")
            own = [n for n, question in enumerate(questions) if question.task == task]
            grades = graders[task]([completions[n] for n in own], [questions[n] for n in own])
            found |= zip(own, grades, strict=True)
        return [found[n] for n in range(len(questions))]

    return Batched(grade_all)


def _of_job(grade: OpenAIGrade) -> Grade:
    return Grade(
        reward=grade.reward,
        sub_rewards={f"graders/{name}": score.value for name, score in grade.scores.items()},
        failure=next(iter(grade.failures), None),
        job=grade,
        invalid=why_down(grade),
    )


def _by_rubric(task: str, rubric: Rubric, thinking: bool) -> GradeAll:
    judge_all, published = JUDGES[task](rubric, thinking), graders_of(task)
    used = {f"published/{name}": score for name, score in published.items() if f"published/{name}" in rubric.weights}

    def grade_all(completions: Sequence[str], questions: Sequence[Question]) -> list[Grade]:
        found = []
        for text, question, judged in zip(completions, questions, judge_all(completions, questions), strict=True):
            found.append(_weighed(rubric, text, judged, {name: score(text, question) for name, score in used.items()}))
        return found

    return grade_all


def _weighed(rubric: Rubric, completion: str, judged: Judged, published: dict[str, float]) -> Grade:
    """`published` are the scores of graders that read what ours does not."""
    weights, sub_rewards = rubric.weights, {name: 0.0 for name in rubric.weights}
    failure = judged.failure
    if judged.scores is not None:
        length = length_reward(len(completion), rubric.max_characters)
        scores = {**judged.scores, "format": lambda: float(judged.well_formed), "length": lambda: length}
        sub_rewards |= {name: scores[name]() for name in weights if name in scores}
        failure = judged.wrong or _blemish(judged, sub_rewards)
    sub_rewards |= published
    return Grade(
        # Both sums run in the same order, so that three ones give exactly 1.
        reward=sum(weights[name] * sub_rewards[name] for name in weights) / sum(weights.values()),
        sub_rewards=sub_rewards,
        failure=failure,
        boxes=judged.boxes,
        confidences=judged.confidences,
        label=judged.label,
        rank=judged.rank,
        invalid=judged.invalid,
    )


def length_reward(num_characters: int, max_characters: int) -> float:
    """1 up to `max_characters`, then falling evenly to 0 at twice as many (DAPO, arXiv 2503.14476, eq. 13, as 0..1)."""
    return min(1.0, max(0.0, 2 - num_characters / max_characters))


def _blemish(judged: Judged, sub_rewards: dict[str, float]) -> Failure | None:
    if not judged.well_formed:
        return Failure.BAD_FORMAT
    return Failure.OVER_LENGTH if sub_rewards.get("length") == 0 else None
