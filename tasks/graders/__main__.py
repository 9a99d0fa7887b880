"""Grade one answer, or check a grader file, without a model or a study.

    python -m tasks.graders run --grader G.json --item I.json --sample S.json
    python -m tasks.graders validate --grader G.json

G.json is the section `reward` of params.yaml, of one task or several: {"grounding": {"iou": 0.9, "format": 0.1}}.
I.json is a question: {"task": "grounding", "asked": "the cup", "boxes": [[10, 20, 300, 400]]}, boxes in thousandths;
with "thinking": false its prompt asks for the answer alone.
S.json is {"completion": "..."}. `run` prints {"reward", "sub_rewards", "errors"}.

A G.json with a `type` is a grader of OpenAI's (tasks.graders.openai), I.json any object, S.json {"output_text": "..."}
or {"choices": [...]}; both commands print what the hosted endpoints answer. Model graders ask OPENAI_BASE_URL.

A file that cannot be used ends with exit code 2 and names each bad key.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from tasks.data.records import Question, Task
from tasks.graders.openai import Spec, parse_spec
from tasks.graders.openai.command import run_grader
from tasks.graders.openai.schema import SpecError
from tasks.graders.openai.values import parse_json
from tasks.graders.rubric import make_grader
from tasks.graders.sandbox import SandboxError
from tasks.graders.units import THOUSANDTHS, whole
from tasks.params import Reward, Section
from tasks.schema.reward import Isolation


class FileError(ValueError):
    """A file that cannot be used; the message names it and each bad key."""


def _a_box(box: list[float]) -> list[float]:
    if len(box) != 4:
        raise ValueError(f"a box is four numbers, not {len(box)}")
    whole(tuple(box), THOUSANDTHS)  # its ValueError says what else is wrong
    return box


class Item(Section):
    """A question without its picture. JSON lists become the tuples of `tasks.data.records.Question`."""

    task: Task
    asked: str = ""
    boxes: list[Annotated[list[float], AfterValidator(_a_box)]] = Field(default=[])
    label: str | None = None
    thinking: bool = True

    def question(self) -> Question:
        return Question("item", "", self.task, self.asked, tuple(map(tuple, self.boxes)), self.label)


class Sample(Section):
    completion: str


def read(path: Path, schema: type[Section]) -> Section:
    """The content of a JSON file; `FileError` names the file and each bad key."""
    try:
        return TypeAdapter(schema).validate_json(path.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(the file)'}: {e['msg']}" for e in error.errors()]
        raise FileError("\n".join([f"{path}: {len(lines)} bad value(s)", *lines])) from None


def read_grader(path: Path) -> Reward:
    reward = read(path, Reward)
    if not any(getattr(reward, task) for task in Reward.model_fields):
        raise FileError(f"{path}: no rubric; give at least one of {', '.join(Reward.model_fields)}")
    try:
        make_grader(reward)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    return reward


def read_object(path: Path) -> dict:
    """The object of a JSON file; `FileError` where there is none."""
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FileError(f"{path}: no JSON: {error}") from None
    if not isinstance(content, dict):
        raise FileError(f"{path}: (the file) is a {type(content).__name__}, where a JSON object is wanted")
    return content


def read_openai(path: Path) -> tuple[dict, Spec] | None:
    """A grader of OpenAI's as it stands in the file, and parsed; None for a section `reward`, which has no `type`."""
    raw = read_object(path)
    if "type" not in raw:
        return None
    try:
        return raw, parse_spec(raw, str(path))
    except SpecError as error:
        raise FileError(str(error)) from None


def run(grader: Path, item: Path, sample: Path, isolation: str) -> dict:
    """{"reward", "sub_rewards", "errors"}: `errors` holds the failure code, or nothing. OpenAI's: as hosted."""
    if openai := read_openai(grader):
        try:
            return run_grader(openai[1], read_object(sample), read_object(item), isolation)
        except (ValueError, SandboxError) as error:
            raise FileError(f"{grader}, {sample}: {error}") from None
    reward, asked = read_grader(grader), read(item, Item)
    if asked.task == "job":
        raise FileError(f"{item}: task job cannot be run so; give --grader a file with what stands in job.grader")
    try:
        got = make_grader(reward, asked.thinking)(read(sample, Sample).completion, asked.question())
    except ValueError as error:
        raise FileError(f"{item}: {error}") from None
    if got.invalid:
        raise FileError(f"{sample}: {got.invalid}")
    return {"reward": got.reward, "sub_rewards": got.sub_rewards, "errors": [got.failure] if got.failure else []}


def validate(grader: Path) -> dict:
    """{task: {name: share of the reward}} of the rubrics in the file; {"grader": the file} for one of OpenAI's, and of
    `job` its grader.
    """
    if openai := read_openai(grader):
        return {"grader": openai[0]}
    reward = read_grader(grader)
    named = {task: rubric for task in Reward.model_fields if (rubric := getattr(reward, task))}
    job = named.pop("job", None)
    rubrics = {task: rubric.weights for task, rubric in named.items()}
    shares = {task: {n: w / sum(ws.values()) for n, w in ws.items()} for task, ws in rubrics.items()}
    return shares | ({"job": job.grader} if job else {})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.graders", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command, files in ((run, ("grader", "item", "sample")), (validate, ("grader",))):
        subparser = commands.add_parser(command.__name__, description=command.__doc__)
        subparser.set_defaults(command=command)
        for file in files:
            subparser.add_argument(f"--{file}", type=Path, required=True)
        if command is run:
            subparser.add_argument(
                "--isolation", choices=get_args(Isolation), default="auto", help="of a python grader"
            )
    given = vars(parser.parse_args(arguments))
    command = given.pop("command")
    try:
        print(json.dumps(command(**given)))
    except FileError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
