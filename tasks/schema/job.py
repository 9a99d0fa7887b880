"""An OpenAI fine-tuning job of type `reinforcement`, as the request that creates it and the API's answers write it.

Source: POST /fine_tuning/jobs and GET /fine_tuning/jobs/{id} (developers.openai.com/api/reference/resources/
fine_tuning).
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, WrapValidator

from tasks.schema.base import Positive, Sparse

Auto = Literal["auto"]


def _allowed(words: str) -> WrapValidator:
    """One error that says what is allowed, where a union has one of each member."""

    def check(value: Any, inner: Any) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise ValueError(f"{json.dumps(value)[:100]} is neither {words} nor 'auto'") from None

    return WrapValidator(check)


def _no_integration(listed: list) -> list:
    if listed:
        raise ValueError("remove it; runs are shown in MLflow")
    return listed


Whole = Annotated[Annotated[int, Field(ge=1)] | Auto, _allowed("a whole number of 1 or more")]


class Hyperparameters(Sparse):
    """As published, with their ranges; each but `reasoning_effort` also 'auto'."""

    batch_size: Annotated[Annotated[int, Field(ge=1, le=256)] | Auto, _allowed("a whole number from 1 to 256")] = "auto"
    n_epochs: Annotated[Annotated[int, Field(ge=1, le=50)] | Auto, _allowed("a whole number from 1 to 50")] = "auto"
    learning_rate_multiplier: Annotated[Positive | Auto, _allowed("a number above 0")] = "auto"
    compute_multiplier: Annotated[
        Annotated[float, Field(gt=1e-5, le=10)] | Auto, _allowed("a number above 0.00001 and at most 10")
    ] = "auto"
    eval_interval: Whole = "auto"
    eval_samples: Whole = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class Reinforcement(Sparse):
    grader: dict[str, JsonValue]
    hyperparameters: Hyperparameters = Hyperparameters()
    response_format: dict[str, JsonValue] | None = None


class Method(Sparse):
    type: Literal["reinforcement"]
    reinforcement: Reinforcement
    supervised: None = None
    dpo: None = None


class Answered(Sparse):
    """What only the API's answers hold: of a run that was hosted, so said and not used."""

    object: Any = None
    id: Any = None
    status: Any = None
    created_at: Any = None
    estimated_finish: Any = None
    finished_at: Any = None
    fine_tuned_model: Any = None
    organization_id: Any = None
    result_files: Any = None
    trained_tokens: Any = None
    error: Any = None
    usage_metrics: Any = None
    shared_with_openai: Any = None
    eval_id: Any = None


class Job(Answered):
    """What is hosted has no meaning here: `model` and the ids of files are only said."""

    method: Method
    model: str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    suffix: str | None = None
    user_provided_suffix: str | None = None  # as the answers call it
    metadata: dict[str, str] | None = None
    integrations: Annotated[list[Any], AfterValidator(_no_integration)] | None = None
    hyperparameters: None = None  # deprecated: of supervised jobs
