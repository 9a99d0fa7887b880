"""An OpenAI fine-tuning job of type `reinforcement`, as the request that creates it and the API's answers write it.

Source: POST /fine_tuning/jobs and GET /fine_tuning/jobs/{id} (developers.openai.com/api/reference/resources/
fine_tuning).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from tasks.schema.base import Positive, Sparse

Auto = Literal["auto"]


class Hyperparameters(Sparse):
    """As published, with their ranges; each but `reasoning_effort` also 'auto'."""

    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    learning_rate_multiplier: Positive | Auto = "auto"
    compute_multiplier: Annotated[float, Field(gt=1e-5, le=10)] | Auto = "auto"
    eval_interval: Annotated[int, Field(ge=1)] | Auto = "auto"
    eval_samples: Annotated[int, Field(ge=1)] | Auto = "auto"
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
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None  # a run is shown in MLflow
    hyperparameters: None = None  # deprecated: of supervised jobs
