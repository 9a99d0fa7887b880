"""The grader objects as pydantic models: every documented field, no other, and what published examples leave out.

Sources: developers.openai.com/api/docs/guides/graders and /api/reference/resources/graders. Beyond the reference, as
its own examples need it: `name` may be missing; `neq` is `ne`; `pass_threshold` (for evals: no reward depends on it)
and sampling_params.max_tokens are accepted; `graders` is an object or a list of named graders.
"""

import ast
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from tasks.graders.openai.formula import Formula, parse_formula
from tasks.graders.openai.templates import Template, Variable, parts
from tasks.schema.base import Count, NonNegative, Share, Sparse

MAX_SOURCE_BYTES = 256_000
Number = Annotated[float, Field(allow_inf_nan=False)]


class SpecError(ValueError):
    """A grader that cannot be used; the message names it and each bad key."""


class Grader(Sparse):
    """What all have."""

    name: str = ""
    pass_threshold: Number | None = None


class StringCheck(Grader):
    type: Literal["string_check"]
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "neq", "like", "ilike"]


def _no_cosine(metric: Any) -> Any:
    if metric == "cosine":
        raise ValueError("cosine compares embeddings and is for evals only, not for RFT; take fuzzy_match or rouge_l")
    return metric


Metric = Literal[
    "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class TextSimilarity(Grader):
    type: Literal["text_similarity"]
    input: Template
    reference: Template
    evaluation_metric: Annotated[Metric, BeforeValidator(_no_cosine)]


class SamplingParams(Sparse):
    """What is not given is left to the endpoint."""

    seed: int | None = None
    top_p: Share | None = None
    temperature: NonNegative | None = None
    max_completions_tokens: Count | None = None
    max_tokens: Count | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class Text(Sparse):
    type: Literal["input_text", "output_text"]
    text: Template


class Image(Sparse):
    type: Literal["input_image"]
    image_url: Template
    detail: Literal["low", "high", "auto"] = "auto"


def _parts(content: Any) -> Any:
    """A string, an object or a list of both as a list of objects."""
    parts = content if isinstance(content, list) else [content]
    return [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]


class Message(Sparse):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Annotated[Text | Image, Field(discriminator="type")]], Field(min_length=1), BeforeValidator(_parts)
    ]
    type: Literal["message"] = "message"


class ModelGrader(Grader):
    model: str
    input: Annotated[list[Message], Field(min_length=1)]
    sampling_params: SamplingParams = SamplingParams()


class ScoreModel(ModelGrader):
    type: Literal["score_model"]
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] = Field(default=[0.0, 1.0])

    @model_validator(mode="after")
    def _ordered(self):
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range is [lowest, highest], not {self.range}")
        return self


class LabelModel(ModelGrader):
    type: Literal["label_model"]
    labels: Annotated[list[str], Field(min_length=1)]
    passing_labels: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _passing_among_labels(self):
        if unknown := sorted(set(self.passing_labels) - set(self.labels)):
            raise ValueError(f"passing_labels {', '.join(unknown)}: not among labels {', '.join(self.labels)}")
        return self


def _has_grade(source: str) -> str:
    if (size := len(source.encode())) >= MAX_SOURCE_BYTES:
        raise ValueError(f"{size} bytes; it must be less than 256 kB")
    try:
        body = ast.parse(source).body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"is no Python: {error}") from None
    grades = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "grade"]
    if not grades:
        raise ValueError("must define a function grade(sample, item) at its top level")
    arguments = grades[-1].args
    names = [*arguments.posonlyargs, *arguments.args]
    if len(names) - len(arguments.defaults) > 2 or (len(names) < 2 and not arguments.vararg):
        raise ValueError(f"grade must take two arguments, sample and item, not {len(names)}")
    return source


class Python(Grader):
    """`image_tag` names the hosted image and its packages; here the source finds the packages of this environment."""

    type: Literal["python"]
    source: Annotated[str, AfterValidator(_has_grade)]
    image_tag: str | None = None


def _by_name(graders: Any) -> Any:
    """A list of graders as an object by their names."""
    if isinstance(graders, list):
        names = [grader.get("name") if isinstance(grader, dict) else None for grader in graders]
        if not all(names):
            raise ValueError("in a list each grader needs a name, which calculate_output calls it by")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"two graders are called {twice[0]!r}")
        graders = dict(zip(names, graders, strict=True))
    if isinstance(graders, dict):
        nested = [name for name, part in graders.items() if isinstance(part, dict) and part.get("type") == "multi"]
        if nested:
            raise ValueError(
                f"{nested[0]} is a multi within a multi; put its graders here and its formula into this one's"
            )
    return graders


Part = Annotated[StringCheck | TextSimilarity | ScoreModel | LabelModel | Python, Field(discriminator="type")]


def variables(part: Part) -> list[Variable]:
    """The variables in a grader's templates."""
    templates: list[str] = []
    if isinstance(part, StringCheck | TextSimilarity):
        templates = [part.input, part.reference]
    elif isinstance(part, ScoreModel | LabelModel):
        contents = [content for message in part.input for content in message.content]
        templates = [content.image_url if isinstance(content, Image) else content.text for content in contents]
    return [found for template in templates for found in parts(template) if isinstance(found, Variable)]


class Multi(Grader):
    type: Literal["multi"]
    graders: Annotated[dict[str, Part], Field(min_length=1), BeforeValidator(_by_name)]
    calculate_output: str

    @model_validator(mode="after")
    def _formula_over_the_graders(self):
        try:
            self.formula()
        except ValueError as error:
            raise ValueError(f"calculate_output {self.calculate_output!r}: {error}") from None
        return self

    def formula(self) -> Formula:
        return parse_formula(self.calculate_output, self.graders)


def _not_alone(spec: Any) -> Any:
    if isinstance(spec, dict) and spec.get("type") == "label_model":
        raise ValueError("label_model stands only within a multi grader")
    return spec


Single = StringCheck | TextSimilarity | ScoreModel | Python
Spec = Single | Multi
SPEC = TypeAdapter(Annotated[Annotated[Spec, Field(discriminator="type")], BeforeValidator(_not_alone)])


def parse_spec(raw: Any, origin: str) -> Spec:
    """The grader of a JSON value; SpecError names `origin` (a file), each bad key and what is wrong with it."""
    try:
        return SPEC.validate_python(raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(the grader)'}: {e['msg']}" for e in error.errors()]
        raise SpecError("\n".join([f"{origin}: {len(lines)} bad value(s)", *lines])) from None
