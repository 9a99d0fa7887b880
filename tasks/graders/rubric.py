"""The grader: parser, sub-rewards and weights in one function. Reward in RFT, score in validation and in grading.

Each task has its rubric: named graders, each in 0..1, weighted by its section of `conf/reward/`. One that is null is
left out; one that weighs 0 is shown and pays nothing.
"""

from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.data.numbers import Quantity, parse_number
from tasks.data.records import Box, Question
from tasks.graders.batch import Batched, GradeAll
from tasks.graders.boxes import giou, iou
from tasks.graders.detection import confidence_reward, iou_reward, match
from tasks.graders.frame import Failure
from tasks.graders.grounding import parse_grounding
from tasks.graders.jobs import JobGrader, why_down
from tasks.graders.labels import alias_table, choice_reward, count_reward, label_reward, parse_label
from tasks.graders.maths import gold_quantity, is_choice, parse_answer, same_number, wrong_steps
from tasks.graders.openai import Failure as OpenAIFailure
from tasks.graders.openai import OpenAIGrade
from tasks.graders.parse import parse_detection
from tasks.graders.programs import FUNCTION, ParsedProgram, parse_program, read_result, sandboxed
from tasks.graders.published import graders_of
from tasks.graders.ranking import known_names, parse_ranking, parts_of, rank_of, rank_reward, right_name
from tasks.graders.sandbox import Ran, SandboxError
from tasks.params import ClassificationReward, DetectionReward, GroundingReward, Reward
from tasks.schema.reward import AnswerReward, MathsReward, ProgramReward, RankingReward, Rubric


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


@dataclass(frozen=True)
class Judged:
    """An answer before weighting. `scores` are functions, so that only what the rubric holds is computed.

    `wrong` says what is wrong with an answer that could be read, `well_formed` whether it has the form asked for;
    `invalid` why nobody can judge it.
    """

    failure: Failure | None = None
    scores: dict[str, Callable[[], float]] | None = None
    wrong: Failure | None = None
    well_formed: bool = False
    boxes: tuple[Box, ...] = ()
    confidences: tuple[float, ...] = ()
    label: str | None = None
    rank: int | None = None
    invalid: str | None = None


Judge = Callable[[str, Question], Judged]
JudgeAll = Callable[[Sequence[str], Sequence[Question]], list[Judged]]


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


def _detection(rubric: DetectionReward, thinking: bool) -> Judge:
    def judge(completion: str, question: Question) -> Judged:
        parsed, num_gold = parse_detection(completion, thinking), len(question.boxes)
        if parsed.failure:
            return Judged(parsed.failure)
        matches = match(parsed.boxes, question.boxes, rubric.iou_threshold, question.ignore, question.exhaustive)
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


def _classification(rubric: ClassificationReward, thinking: bool) -> Judge:
    aliases = alias_table(rubric.aliases)

    def judge(completion: str, question: Question) -> Judged:
        gold, parsed = question.label, parse_label(completion, thinking)
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


def _grounding(rubric: GroundingReward, thinking: bool) -> Judge:
    def judge(completion: str, question: Question) -> Judged:
        if len(question.boxes) != 1:
            raise ValueError(f"{question.record_id}: a grounding question with {len(question.boxes)} boxes, not one")
        (gold,), parsed = question.boxes, parse_grounding(completion, thinking)
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


def _gold(question: Question) -> str:
    if not question.label:
        raise ValueError(f"{question.record_id}: a {question.task} question without an answer (`label`)")
    return question.label


def _number_score(rubric: AnswerReward, stated: Quantity, gold: str) -> float:
    right = same_number(stated, gold_quantity(gold), rubric.absolute_tolerance, rubric.relative_tolerance)
    return 1.0 if right else rubric.partial


def same_answer(one: str, other: str, rubric: AnswerReward) -> bool:
    """Whether two stated answers are one: numbers within the tolerances, letters strictly."""
    first, second = parse_number(one), parse_number(other)
    if first is None or second is None:
        return is_choice(one) and is_choice(other) and bool(choice_reward(one, other))
    return same_number(first, second, rubric.absolute_tolerance, rubric.relative_tolerance)


def _maths(rubric: MathsReward, thinking: bool) -> Judge:
    def judge(completion: str, question: Question) -> Judged:
        gold, stated = _gold(question), parse_answer(completion, rubric.form)
        if stated.failure:
            return Judged(stated.failure)
        if is_choice(gold):
            if not is_choice(stated.answer):
                return Judged(Failure.BAD_CHOICE)
            score = choice_reward(stated.answer, gold)
        else:
            number = parse_number(stated.answer)
            if number is None:
                return Judged(Failure.BAD_NUMBER)
            score = _number_score(rubric, number, gold)
        wrong = None if score == 1 else Failure.WRONG_ANSWER
        if rubric.check_steps and score == 1 and wrong_steps(stated.thought):
            score, wrong = 0.0, Failure.WRONG_STEP
        return Judged(
            scores={"answer": lambda: score}, wrong=wrong, well_formed=stated.well_formed, label=stated.answer
        )

    return judge


def _programs(rubric: ProgramReward, thinking: bool) -> JudgeAll:
    """All that can be read run together, over the workers of one sandbox."""

    def judge_all(completions: Sequence[str], questions: Sequence[Question]) -> list[Judged]:
        golds, parsed = list(map(_gold, questions)), list(map(parse_program, completions))
        calls = [(program.source, FUNCTION, ()) for program in parsed if not program.failure]
        sandbox = sandboxed(rubric.seconds, rubric.memory_mb, rubric.isolation) if calls else None
        runs = iter(sandbox.map(calls) if sandbox else [])
        return [
            Judged(program.failure) if program.failure else _ran(rubric, program, gold, next(runs))
            for program, gold in zip(parsed, golds, strict=True)
        ]

    return judge_all


def _ran(rubric: ProgramReward, program: ParsedProgram, gold: str, ran: Ran | SandboxError) -> Judged:
    if isinstance(ran, SandboxError):
        return Judged(invalid=f"sandbox: {ran}")
    result = read_result(ran)
    if result.failure:
        return Judged(result.failure)
    if (result.letter is not None) != is_choice(gold):
        return Judged(Failure.BAD_RESULT)
    if result.letter is not None:
        score = choice_reward(result.letter, gold)
    else:
        score = _number_score(rubric, result.quantity, gold)
    return Judged(
        scores={"answer": lambda: score},
        wrong=None if score == 1 else Failure.WRONG_ANSWER,
        well_formed=program.well_formed,
        label=result.text,
    )


def _ranking(rubric: RankingReward, thinking: bool) -> Judge:
    known = known_names(alias_table(rubric.aliases))

    def judge(completion: str, question: Question) -> Judged:
        gold = _gold(question)
        right = right_name(gold, known)
        parsed = parse_ranking(completion, rubric.max_names, ChainMap({parts_of(gold): right}, known))
        if parsed.failure:
            return Judged(parsed.failure)
        rank = rank_of(right, parsed.names)
        return Judged(
            scores={"answer": lambda: rank_reward(rank, rubric.scores, rubric.later)},
            wrong=Failure.NOT_RANKED if rank is None else None,
            well_formed=parsed.well_formed,
            label=parsed.stated,
            rank=rank,
        )

    return judge


def _each(make_judge: Callable[[Rubric, bool], Judge]) -> Callable[[Rubric, bool], JudgeAll]:
    """Of a task whose answers are judged one by one."""

    def make(rubric: Rubric, thinking: bool) -> JudgeAll:
        judge = make_judge(rubric, thinking)
        return lambda completions, questions: list(map(judge, completions, questions))

    return make


JUDGES = {  # problems in words are always thought about (`Prompt`)
    "detection": _each(_detection),
    "classification": _each(_classification),
    "grounding": _each(_grounding),
    "maths": _each(_maths),
    "program": _programs,
    "ranking": _each(_ranking),
}
