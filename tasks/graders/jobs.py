"""The grader of an imported job: a completion and its row -> sample and item -> OpenAI's grader, many at once.

As with the hosted reasoning models, graders see what follows the thinking. A completion is `<think>...</think>output`;
the opening tag may be missing, since some chat templates write it. Thinking that never ends leaves no output.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from statistics import fmean

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from tasks.data.records import Question
from tasks.graders.batch import MOST_INVALID, InvalidRewards
from tasks.graders.openai import Failure, Judge, OpenAIGrade, Spec, make_batch_grader, parse_spec
from tasks.graders.openai.failures import Score
from tasks.graders.openai.grade import BatchGrader
from tasks.graders.openai.references import check_references
from tasks.graders.openai.schema import LabelModel, Multi, Part, Python, ScoreModel, SpecError, variables
from tasks.graders.openai.templates import Variable
from tasks.graders.openai.values import parse_json
from tasks.graders.sandbox import WORKERS, Sandbox
from tasks.params import JobReward

OPEN, CLOSE = "<think>", "</think>"
JUDGES = ScoreModel | LabelModel
FEWEST = 4  # failures that break a grader, in steps of more: a judge may stumble over the only answer that is JSON
DOWN = (Failure.PYTHON_GRADER_SERVER, Failure.MODEL_GRADER_SERVER)  # not the model's doing
# May be the model's doing once, and the grader's where nearly every completion has it.
BROKEN = (Failure.PYTHON_GRADER_RUNTIME, Failure.MODEL_GRADER_REFUSAL, Failure.MODEL_GRADER_PARSE)


def split_reasoning(completion: str) -> tuple[str, str]:
    """The thinking and the output of a completion, without their outer space."""
    before, closed, after = completion.partition(CLOSE)
    if closed:
        return before.strip().removeprefix(OPEN).strip(), after.strip()
    if completion.lstrip().startswith(OPEN):
        return completion.strip().removeprefix(OPEN).strip(), ""
    return "", completion.strip()


def part_names(grader: dict) -> dict[str, str]:
    """{name: type} of the graders of a spec, the multi itself last."""
    spec = parse_spec(grader, "reward.job.grader")
    names = {name: part.type for name, part in _parts(spec).items()}
    return names | ({spec.name or spec.type: spec.type} if isinstance(spec, Multi) else {})


def _parts(spec) -> dict[str, Part]:
    return spec.graders if isinstance(spec, Multi) else {spec.name or spec.type: spec}


def refuse_hopeless(spec: Spec, origin: str) -> None:
    """SpecError for a grader that would grade 0 whatever the answer: on tools or sound, or by a formula without value.

    A formula may have none at some grades: log(right) while all answers are wrong is the model's to mend.
    """
    for name, part in _parts(spec).items():
        if unheard := next(filter(_unheard, variables(part)), None):
            raise SpecError(
                f"{origin}: the grader {name!r} reads {{{{ {unheard} }}}}, and completions hold neither tool calls nor "
                "sound here, so that it grades 0; let it read sample.output_text or sample.output_json, or remove it"
            )
    if isinstance(spec, Multi) and not spec.formula().ever({n: _range(part) for n, part in spec.graders.items()}):
        raise SpecError(f"{origin}: calculate_output {spec.calculate_output!r} has no value at any grades; correct it")


def _unheard(variable: Variable) -> bool:
    of_choice = variable[:2] == ("sample", "choices") and not {"tool_calls", "audio"}.isdisjoint(variable)
    return of_choice or variable[:2] in (("sample", "output_tools"), ("sample", "output_audio"))


def _range(part: Part) -> tuple[float, float]:
    if isinstance(part, ScoreModel):
        return part.range[0], part.range[1]
    return (-100.0, 100.0) if isinstance(part, Python) else (0.0, 1.0)


def json_schema(response_format: dict | None) -> dict | None:
    """The JSON schema of a response format, None for plain text. SpecError for any other, and for a bad schema."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            try:
                Draft202012Validator.check_schema(schema)
                check_references(schema)
            except SchemaError as error:
                raise SpecError(f"response_format: no JSON schema: {error.message[:200]}") from None
            return schema
    raise SpecError(f'response_format: give {{"type": "json_schema", ...}}, not {str(response_format)[:100]!r}')


class JobGrader:
    """Grades completions of a job's questions. Raises SpecError for a grader or a response format that cannot be used.

    The sandbox and the judge start with the first grade and live as long as this process.
    """

    def __init__(self, reward: JobReward):
        self._reward = reward
        self._spec = parse_spec(reward.grader, "reward.job.grader")
        refuse_hopeless(self._spec, "reward.job.grader")
        self.parts = _parts(self._spec)
        schema = json_schema(reward.response_format)
        # an empty registry: a `$ref` to the network is an error, never a request
        self._schema = Draft202012Validator(schema, registry=Registry()) if schema else None

    @cached_property
    def _grade_all(self) -> BatchGrader:
        parts = self.parts.values()
        programmed, judged = (any(isinstance(p, kinds) for p in parts) for kinds in (Python, JUDGES))
        sources = [part.source for part in parts if isinstance(part, Python)]
        sandbox = Sandbox(isolation=self._reward.isolation, workers=WORKERS, sources=sources) if programmed else None
        return make_batch_grader(self._spec, sandbox, self._judge() if judged else None)

    def _judge(self) -> Judge:
        reward = self._reward
        named = {**os.environ, "OPENAI_BASE_URL": reward.judge_url} if reward.judge_url else os.environ
        return Judge.from_environment(
            named,
            timeout=reward.judge_timeout,
            concurrency=reward.judge_concurrency,
            cache=Path(reward.judge_cache) if reward.judge_cache else None,
        )

    def try_out(self, output: str, question: Question) -> dict[str, Score]:
        """What each grader that asks no judge makes of one output, alone, by name."""
        parts = {name: part for name, part in self.parts.items() if not isinstance(part, JUDGES)}
        programmed = any(isinstance(part, Python) for part in parts.values())
        with Sandbox(isolation=self._reward.isolation, workers=1) if programmed else nullcontext() as sandbox:
            grades = {name: make_batch_grader(part, sandbox) for name, part in parts.items()}
            pair = {"output_text": output}, _item(question)
            return {name: next(iter(grade([pair])[0].scores.values())) for name, grade in grades.items()}

    def __call__(self, completions: Sequence[str], questions: Sequence[Question]) -> list[OpenAIGrade]:
        """A grade for each completion; ValueError for a question without an item."""
        outputs = [split_reasoning(completion)[1] for completion in completions]
        faults = [self._fault(output) for output in outputs]
        pairs = [
            ({"output_text": output}, _item(question))
            for output, question, fault in zip(outputs, questions, faults, strict=True)
            if fault is None
        ]
        grades = iter(self._grade_all(pairs) if pairs else [])
        return [next(grades) if fault is None else self._unreadable(fault) for fault in faults]

    def _fault(self, output: str) -> str | None:
        """Why an output is not of the response format; None where it is, or where none is asked for."""
        if self._schema is None:
            return None
        try:
            self._schema.validate(parse_json(output, dict))
        except ValidationError as error:
            return f"not of the response format: {error.message[:200]}"
        except (OverflowError, RecursionError) as error:  # a number too large to divide; a value nested too deep
            return f"not of the response format: {error}"
        except ValueError as error:
            return f"output_text is no JSON: {error}"
        return None

    def _unreadable(self, fault: str) -> OpenAIGrade:
        scores = {name: Score(failure=Failure.SAMPLE_PARSE, detail=fault) for name in self.parts}
        return OpenAIGrade(
            reward=0.0,
            sub_rewards=dict.fromkeys(scores, 0.0) if isinstance(self._spec, Multi) else {},
            failures={Failure.SAMPLE_PARSE: len(scores)},
            details={Failure.SAMPLE_PARSE: fault},
            usage={},
            seconds=0.0,
            scores=scores,
        )


def _item(question: Question) -> dict:
    if question.item is None:
        raise ValueError(f"{question.record_id}: a job question without an item")
    return question.item


def why_down(grade: OpenAIGrade) -> str | None:
    """The sandbox's or the judge's trouble that kept a completion from being graded."""
    return next((f"{kind}: {grade.details[kind]}" for kind in DOWN if kind in grade.failures), None)


def stop_if_broken(grades: Sequence[OpenAIGrade]) -> None:
    """`InvalidRewards` where one grader fails on nearly every completion of a step that it was given: each 0 is as
    documented, all of them teach nothing, and nobody would hear of it. An output that is no JSON, or lacks a key, is
    the model's to mend, and so is a formula without a value at its grades.
    """

    def broken(score: Score) -> bool:
        unknown = score.failure == Failure.INVALID_VARIABLE and score.detail.startswith("{{ item")
        return unknown or score.failure in BROKEN

    read = [grade for grade in grades if Failure.OTHER not in _beside(grade)]
    for name in grades[0].scores:
        given = [score for grade in read if (score := grade.scores[name]).failure != Failure.SAMPLE_PARSE]
        failed = [score for score in given if broken(score)]
        if len(failed) >= min(FEWEST, len(grades)) and len(failed) > (1 - MOST_INVALID) * len(given):
            raise InvalidRewards(
                f"reward.job.grader: the grader {name!r} failed on {len(failed)} of {len(given)} completions, so that "
                f"it grades 0 whatever the answer; the first: {failed[0].failure}, {failed[0].detail}. Correct it; one "
                "that cannot read an answer must return 0, not raise"
            )


def _beside(grade: OpenAIGrade) -> set[Failure]:
    """What went wrong in the formula, or with an output that no grader read."""
    return set(grade.failures) - {score.failure for score in grade.scores.values()}


def job_metrics(completions: Sequence[str], grades: Sequence[OpenAIGrade]) -> dict[str, float]:
    """What the documented events tell of a step beside its rewards: `num_graded`; `unresponsive`, the share without any
    output; of each grader by name its `errors/<name>/<kind>` (counts), `latency/<name>` (mean seconds) and, of judges,
    `usage/<name>/<tokens>` (sums); `beside/<kind>` of what goes wrong in the formula, or with the output itself.
    """
    found: Counter = Counter()
    for grade in grades:
        found.update(f"beside/{kind}" for kind in _beside(grade))
        for name, score in grade.scores.items():
            found.update({f"usage/{name}/{kind}": num for kind, num in score.usage.items()})
            found.update([f"errors/{name}/{score.failure}"] if score.failure else [])
    names = grades[0].scores
    latency = {f"latency/{name}": fmean(grade.scores[name].seconds for grade in grades) for name in names}
    unresponsive = fmean(not split_reasoning(completion)[1] for completion in completions)
    return {"num_graded": len(grades), "unresponsive": unresponsive, **latency, **found}
