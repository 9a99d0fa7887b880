"""What graders see of a completion: the namespace `sample`, bounded, and the data row `item`."""

import json
from dataclasses import dataclass
from typing import Any

from tasks.graders.frame import MAX_CHARACTERS
from tasks.graders.openai.failures import Failure, GradeError
from tasks.graders.openai.values import parse_json

VARIABLES = ("output_text", "output_json", "output_tools", "choices", "output_audio")


@dataclass(frozen=True)
class Context:
    """One sample and its item, as JSON values. `json_error` says why `sample` has no `output_json`, if it has none."""

    sample: dict[str, Any]
    item: dict[str, Any]
    json_error: str = ""


def make_context(sample: dict, item: dict) -> Context:
    """`sample` filled up to the documented variables, from its first choice where it holds no `output_text`.

    `output_json` is there when the output is JSON, as for the hosted endpoint. Raises ValueError for a sample that is
    none, and GradeError for an output of more than MAX_CHARACTERS, tool calls included.
    """
    if unknown := sorted(set(sample) - set(VARIABLES)):
        raise ValueError(f"sample: unknown {', '.join(unknown)}; it may hold {', '.join(VARIABLES)}")
    message = _message(sample.get("choices"))
    text = sample.get("output_text", message.get("content", "" if message else None))
    tools = sample.get("output_tools", message.get("tool_calls")) or []
    if text is None and tools:
        text = ""  # chat completions leave the content of a tool call null
    if not isinstance(text, str) or not isinstance(tools, list):
        raise ValueError(f"sample: give output_text, a string, or choices with a message; output_text is {text!r}")
    if (length := len(text) + (len(json.dumps(tools)) if tools else 0)) > MAX_CHARACTERS:
        raise GradeError(Failure.OTHER, f"an output of {length} characters; graders read {MAX_CHARACTERS}")
    made = {"role": "assistant", "content": text, **({"tool_calls": tools} if tools else {})}
    full = {"choices": [{"index": 0, "message": made, "finish_reason": "stop"}], **sample}
    full |= {"output_text": text, "output_tools": tools}
    if "output_json" in full:
        return Context(full, item)
    try:
        return Context({**full, "output_json": parse_json(text, dict)}, item)
    except ValueError as error:
        return Context(full, item, f"output_text is no JSON: {error}")


def _message(choices: Any) -> dict:
    match choices:
        case None:
            return {}
        case [{"message": dict() as message}, *_]:
            return message
    raise ValueError("sample.choices: not a list of choices, each with a message, as chat completions return it")
