"""Templates: `{{ item.a.b[0] }}` and `{{ sample.output_text }}` in the strings of a spec, nothing else.

One pass over the spec's own text: what is inserted is never read again, so a model that writes `{{ item.answer }}`
gets these characters. Paths are `.name`, `[0]` and `["any name"]`.
"""

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator

from tasks.graders.openai.failures import Failure, GradeError
from tasks.graders.openai.sample import VARIABLES, Context
from tasks.graders.openai.values import as_text

BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
STEP = r"""\.[^\s.\[\]{}"'|()]+|\[[0-9]+\]|\["[^"]+"\]|\['[^']+'\]"""
VARIABLE = re.compile(rf"\s*(item|sample)((?:{STEP})+)\s*")


class Variable(tuple):
    """The steps of a path: 'item' or 'sample', then names and indices."""

    def __str__(self) -> str:
        return self[0] + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self[1:])


@lru_cache(maxsize=1024)
def parts(template: str) -> tuple[str | Variable, ...]:
    """Literal texts and variables by turns. Raises ValueError for braces that hold no variable of item or sample."""
    split = BRACES.split(template)
    return tuple(_variable(part) if place % 2 else part for place, part in enumerate(split))


def render(template: str, context: Context) -> str:
    """The template with its variables' values, as `as_text` writes them. GradeError names one that is not there."""
    return "".join(p if isinstance(p, str) else as_text(_value(p, context)) for p in parts(template))


def _checked(template: str) -> str:
    parts(template)
    return template


Template = Annotated[str, AfterValidator(_checked)]


def _variable(inside: str) -> Variable:
    found = VARIABLE.fullmatch(inside)
    if not found:
        raise ValueError(f"{{{{{inside}}}}} is no variable; write {{{{ item.name }}}} or {{{{ sample.output_text }}}}")
    steps = [_step(step) for step in re.findall(STEP, found[2])]
    if found[1] == "sample" and steps[0] not in VARIABLES:
        raise ValueError(f"{{{{{inside}}}}}: sample has no {steps[0]}, only {', '.join(VARIABLES)}")
    return Variable((found[1], *steps))


def _step(step: str) -> str | int:
    if step[0] == ".":
        return step[1:]
    return step[2:-2] if step[1] in "\"'" else int(step[1:-1])


def _value(variable: Variable, context: Context) -> Any:
    if variable[:2] == ("sample", "output_json") and context.json_error:
        raise GradeError(Failure.SAMPLE_PARSE, f"{{{{ {variable} }}}}: {context.json_error}")
    value = context.item if variable[0] == "item" else context.sample
    for place, step in enumerate(variable[1:], start=1):
        held = isinstance(value, dict) and step in value
        held = held or (isinstance(value, list) and isinstance(step, int) and step < len(value))
        if not held:
            what = f"{Variable(variable[:place])} holds no {step!r}"
            raise GradeError(Failure.INVALID_VARIABLE, f"{{{{ {variable} }}}}: {what}")
        value = value[step]
    return value
