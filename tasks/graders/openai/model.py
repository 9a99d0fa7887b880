"""score_model and label_model: the request that a judge gets, and the grade that its reply gives.

The judge is asked for the documented response format, {"steps": [{"description", "conclusion"}], "result"}, by a strict
schema. An endpoint that does not hold judges to one may also answer the bare result, put a Markdown fence around it, or
begin with its thinking. A role `developer` is sent as `system`, which every chat template knows.
"""

from tasks.graders.openai.failures import Failure, Score
from tasks.graders.openai.judge import Reply
from tasks.graders.openai.sample import Context
from tasks.graders.openai.schema import Image, LabelModel, Message, ModelGrader, ScoreModel
from tasks.graders.openai.templates import render
from tasks.graders.openai.values import as_text, finite, parse_json

STEP = {
    "type": "object",
    "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
    "required": ["description", "conclusion"],
    "additionalProperties": False,
}


def model_request(spec: ModelGrader, context: Context) -> dict:
    """The body of the chat completion. GradeError for a variable that is not there."""
    result = {"type": "string", "enum": spec.labels} if isinstance(spec, LabelModel) else {"type": "number"}
    schema = {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": STEP}, "result": result},
        "required": ["steps", "result"],
        "additionalProperties": False,
    }
    sampling = spec.sampling_params.model_dump(exclude_none=True)
    if "max_completions_tokens" in sampling:  # the graders' spelling; chat completions write it without the s
        sampling["max_completion_tokens"] = sampling.pop("max_completions_tokens")
    return {
        "model": spec.model,
        "messages": [_message(message, context) for message in spec.input],
        "response_format": {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": schema}},
        **sampling,
    }


def model_score(spec: ScoreModel | LabelModel, reply: Reply) -> Score:
    """score_model: the number, clamped to `range`. label_model: 1 for a passing label, 0 for another."""
    cost = {"seconds": reply.seconds, "model": reply.model or spec.model, "usage": reply.usage}
    if reply.error is not None:
        return Score(failure=Failure.MODEL_GRADER_SERVER, detail=reply.error, seconds=reply.seconds)
    if reply.refusal:
        return Score(failure=Failure.MODEL_GRADER_REFUSAL, detail=reply.refusal, **cost)
    bare = _bare(reply.content or "")
    result = _result(bare)
    if isinstance(spec, LabelModel):
        said = bare if bare in spec.labels else result  # the labels `true` and `5` are JSON too
        label = as_text(said) if isinstance(said, str | int) else None
        value = float(label in spec.passing_labels) if label in spec.labels else None
    elif (value := None if isinstance(result, bool) else finite(result)) is not None:
        value = min(spec.range[1], max(spec.range[0], value))
    if value is None:
        wanted = "one of the labels" if isinstance(spec, LabelModel) else "a number"
        said = (reply.content or "")[:200]
        return Score(failure=Failure.MODEL_GRADER_PARSE, detail=f"the judge's result is not {wanted}: {said!r}", **cost)
    return Score(value, **cost)


def _message(message: Message, context: Context) -> dict:
    role = "system" if message.role == "developer" else message.role
    parts = [_part(part, context) for part in message.content]
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    return {"role": role, "content": parts[0]["text"] if only_text else parts}


def _part(part, context: Context) -> dict:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": render(part.image_url, context), "detail": part.detail}}
    return {"type": "text", "text": render(part.text, context)}


def _bare(content: str) -> str:
    """A reply without the one thinking part that it begins with, and the one fence around all the rest. No more: what
    would be picked out of other words may be what the judge quotes of the graded text.
    """
    content = content.strip()
    if content.startswith("<think>"):
        content = content.partition("</think>")[2].strip()
    if content.startswith("```") and content.endswith("```"):
        content = content[3:-3].removeprefix("json").strip()
    return content


def _result(content: str) -> object:
    """`result` of the response format, or the whole answer where it is no object or no JSON."""
    try:
        value = parse_json(content, dict)
    except ValueError:
        return content
    return value.get("result") if isinstance(value, dict) else value
