"""What an answer states and how well it agrees with the gold one, before a rubric weighs it: a judge a task."""

from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.data.numbers import Quantity, parse_number
from tasks.data.records import Box, Question
from tasks.graders.boxes import giou, iou
from tasks.graders.detection import confidence_reward, iou_reward, match
from tasks.graders.frame import Failure
from tasks.graders.grounding import parse_grounding
from tasks.graders.labels import alias_table, choice_reward, count_reward, label_reward, parse_label
from tasks.graders.maths import gold_quantity, is_choice, parse_answer, same_number, wrong_steps
from tasks.graders.parse import parse_detection
from tasks.graders.programs import FUNCTION, ParsedProgram, parse_program, read_result, sandboxed
from tasks.graders.ranking import known_names, parse_ranking, parts_of, rank_of, rank_reward, right_name
from tasks.graders.sandbox import Ran, SandboxError
from tasks.params import ClassificationReward, DetectionReward, GroundingReward
from tasks.schema.reward import AnswerReward, MathsReward, ProgramReward, RankingReward, Rubric


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
    """Whether two stated answers are one: numbers within the tolerances of either, letters strictly."""
    first, second = parse_number(one), parse_number(other)
    if first is None or second is None:
        return is_choice(one) and is_choice(other) and bool(choice_reward(one, other))
    tolerances = rubric.absolute_tolerance, rubric.relative_tolerance
    return same_number(first, second, *tolerances) or same_number(second, first, *tolerances)


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
