"""A spec made into a function of sample and item: every grader, the formula over them, failures counted by kind.

A grader that fails grades 0, as the hosted ones do, and the formula goes on with that. But where the formula would pay
more for the failure than for that grader's best grade (1 - penalty, with a penalty that crashes), the reward is 0.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tasks.graders.openai.failures import Failure, GradeError, Score
from tasks.graders.openai.judge import Judge
from tasks.graders.openai.model import model_request, model_score
from tasks.graders.openai.sample import Context, make_context
from tasks.graders.openai.schema import LabelModel, Multi, Part, Python, ScoreModel, Spec, StringCheck, TextSimilarity
from tasks.graders.openai.similarity import similarity
from tasks.graders.openai.templates import render
from tasks.graders.openai.values import finite
from tasks.graders.sandbox import Sandbox, SandboxError


@dataclass(frozen=True)
class OpenAIGrade:
    """`reward` is finite: in 0..1, in the `range` of a score_model, or what a python grader or formula makes of it.

    `sub_rewards` are the grades of a multi's graders by name, empty for any other. `failures` counts what went wrong by
    kind, `details` holds the first text of each; both are empty when nothing did. `usage`: tokens by judge. `seconds`
    is the time spent on this sample, summed over graders. `scores` holds each grader's by name (its type where it has
    none), a single one's too.
    """

    reward: float
    sub_rewards: dict[str, float]
    failures: dict[Failure, int]
    details: dict[Failure, str]
    usage: dict[str, dict[str, int]]
    seconds: float
    scores: dict[str, Score]


Scorer = Callable[[Sequence[Context]], list[Score]]
BatchGrader = Callable[[Sequence[tuple[dict, dict]]], list[OpenAIGrade]]


def make_openai_grader(
    spec: Spec, sandbox: Sandbox | None = None, judge: Judge | None = None
) -> Callable[[dict, dict], OpenAIGrade]:
    """A function of (sample, item). See `make_batch_grader`, which is faster for many."""
    grade_all = make_batch_grader(spec, sandbox, judge)
    return lambda sample, item: grade_all([(sample, item)])[0]


def make_batch_grader(spec: Spec, sandbox: Sandbox | None = None, judge: Judge | None = None) -> BatchGrader:
    """A function of [(sample, item), ...] that grades them together, python over the sandbox's workers and model
    graders as many at once as the judge takes.

    Raises ValueError for a spec that needs a sandbox or a judge and gets none; the function, for a sample that has
    neither output_text nor choices. Whatever a model wrote, and whatever a judge does, is a grade.
    """
    parts = spec.graders if isinstance(spec, Multi) else {spec.name or spec.type: spec}
    scorers = {name: _scorer(part, sandbox, judge) for name, part in parts.items()}
    combine = _formula(spec) if isinstance(spec, Multi) else _alone

    def grade_all(pairs: Sequence[tuple[dict, dict]]) -> list[OpenAIGrade]:
        contexts = [_context(sample, item) for sample, item in pairs]
        readable = [context for context in contexts if isinstance(context, Context)]
        columns = [scorer(readable) for scorer in scorers.values()]
        rows = iter(list(zip(*columns, strict=True)))
        zeros = {name: Score() for name in parts}
        return [
            combine(dict(zip(parts, next(rows), strict=True)))
            if isinstance(context, Context)
            else _grade(0.0, zeros, isinstance(spec, Multi), [context])
            for context in contexts
        ]

    return grade_all


def _context(sample: dict, item: dict) -> Context | Score:
    try:
        return make_context(sample, item)
    except GradeError as error:
        return Score(failure=error.failure, detail=str(error))


def _scorer(part: Part, sandbox: Sandbox | None, judge: Judge | None) -> Scorer:
    match part:
        case StringCheck():
            return _each(partial(string_check, part))
        case TextSimilarity():
            return _each(partial(_similarity, part))
        case Python():
            if sandbox is None:
                raise ValueError(f"the python grader {part.name!r} needs a sandbox")
            return lambda contexts: _run_python(part, sandbox, contexts)
    if judge is None:
        raise ValueError(f"the {part.type} grader {part.name!r} needs a judge")
    return lambda contexts: _ask_judge(part, judge, contexts)


def _each(function: Callable[[Context], float]) -> Scorer:
    def score(context: Context) -> Score:
        started = time.perf_counter()
        try:
            made = Score(function(context))
        except GradeError as error:
            made = Score(failure=error.failure, detail=str(error))
        return replace(made, seconds=time.perf_counter() - started)

    return lambda contexts: [score(context) for context in contexts]


def string_check(spec: StringCheck, context: Context) -> float:
    """1 or 0. An empty reference is in no input: `like` must not pay for an empty answer in the reference's place."""
    text, reference = render(spec.input, context), render(spec.reference, context)
    if spec.operation in ("eq", "ne", "neq"):
        return float((text == reference) == (spec.operation == "eq"))
    if spec.operation == "ilike":
        text, reference = text.casefold(), reference.casefold()
    return float(bool(reference) and reference in text)


def _similarity(spec: TextSimilarity, context: Context) -> float:
    return similarity(spec.evaluation_metric, render(spec.input, context), render(spec.reference, context))


def _run_python(spec: Python, sandbox: Sandbox, contexts: Sequence[Context]) -> list[Score]:
    calls = [(spec.source, "grade", ({"output_json": None, **c.sample}, c.item)) for c in contexts]
    scores = []
    for ran in sandbox.map(calls):
        if isinstance(ran, SandboxError):
            scores.append(Score(failure=Failure.PYTHON_GRADER_SERVER, detail=str(ran)))
            continue
        value = finite(ran.value)
        detail = f"{ran.failure}: {ran.error}" if ran.failure else f"grade returned {str(ran.value)[:100]!r}, no number"
        if ran.failure or value is None:
            scores.append(Score(failure=Failure.PYTHON_GRADER_RUNTIME, detail=detail, seconds=ran.seconds))
        else:
            scores.append(Score(value, seconds=ran.seconds))
    return scores


def _ask_judge(spec: ScoreModel | LabelModel, judge: Judge, contexts: Sequence[Context]) -> list[Score]:
    requests: list[dict | Score] = []
    for context in contexts:
        try:
            requests.append(model_request(spec, context))
        except GradeError as error:
            requests.append(Score(failure=error.failure, detail=str(error)))
    replies = iter(judge.ask([request for request in requests if isinstance(request, dict)]))
    return [model_score(spec, next(replies)) if isinstance(request, dict) else request for request in requests]


def _alone(scores: dict[str, Score]) -> OpenAIGrade:
    (score,) = scores.values()
    return _grade(score.value, scores, False)


def _formula(spec: Multi) -> Callable[[dict[str, Score]], OpenAIGrade]:
    formula = spec.formula()
    best = {name: part.range[1] if isinstance(part, ScoreModel) else 1.0 for name, part in spec.graders.items()}

    def combine(scores: dict[str, Score]) -> OpenAIGrade:
        grades = {name: score.value for name, score in scores.items()}
        try:
            reward = formula(grades)
            failed = [name for name, score in scores.items() if score.failure]
            instead = [*([name] for name in failed), failed]  # each failure alone, and all of them
            if any(formula(grades | {name: best[name] for name in names}) < reward for names in instead):
                reward = 0.0
        except (ArithmeticError, ValueError) as error:
            detail = f"calculate_output has no value at {grades}: {error}"
            return _grade(0.0, scores, True, [Score(failure=Failure.FORMULA_PARSE, detail=detail)])
        return _grade(reward, scores, True)

    return combine


def _grade(reward: float, scores: dict[str, Score], several: bool, others: Sequence[Score] = ()) -> OpenAIGrade:
    everything = [*scores.values(), *others]
    failed = [score for score in everything if score.failure]
    usage: dict[str, Counter] = {}
    for score in everything:
        if score.model is not None:
            usage.setdefault(score.model, Counter()).update(score.usage)
    return OpenAIGrade(
        reward=reward,
        sub_rewards={name: score.value for name, score in scores.items()} if several else {},
        failures=dict(Counter(score.failure for score in failed)),
        details={score.failure: score.detail for score in reversed(failed)},
        usage={model: dict(tokens) for model, tokens in usage.items()},
        seconds=sum(score.seconds for score in everything),
        scores=scores,
    )
