"""Why a grader gave no grade. Such a grade is 0 and is counted; too many stop a run (`tasks.graders.batch`, `jobs`)."""

from dataclasses import dataclass, field
from enum import StrEnum


class Failure(StrEnum):
    """The kinds that the hosted endpoint `graders/run` reports, each there with `_error` behind it."""

    FORMULA_PARSE = "formula_parse"  # calculate_output has no finite value for these grades
    SAMPLE_PARSE = "sample_parse"  # output_json is asked for, and the output is no JSON
    INVALID_VARIABLE = "invalid_variable"  # a template names what item or sample does not hold
    PYTHON_GRADER_SERVER = "python_grader_server"  # the sandbox could not run the source
    PYTHON_GRADER_RUNTIME = "python_grader_runtime"  # the source raised, was stopped or returned no finite number
    MODEL_GRADER_SERVER = "model_grader_server"  # the judge could not be reached, or answered no completion
    MODEL_GRADER_REFUSAL = "model_grader_refusal"
    MODEL_GRADER_PARSE = "model_grader_parse"  # the judge's answer holds no number, or none of the labels
    OTHER = "other"  # the output is longer than graders read


class GradeError(Exception):
    """Carries a failure out of the nested steps of one grade; `Score` holds it from there on."""

    def __init__(self, failure: Failure, detail: str):
        super().__init__(detail)
        self.failure = failure


@dataclass(frozen=True)
class Score:
    """One grader's grade of one sample: finite, 0 where `failure` says why there is none. `detail` is for a person.

    `usage` is the tokens that a judge spent on it, by the hosted endpoint's names; `model` is the judge's name.
    """

    value: float = 0.0
    failure: Failure | None = None
    detail: str = ""
    seconds: float = 0.0
    model: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
