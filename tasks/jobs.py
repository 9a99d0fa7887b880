"""An OpenAI fine-tuning job as a study: what each of its keys becomes here, and what cannot be honoured.

    {"model": "o4-mini-2025-04-16", "training_file": "file-...", "seed": 0, "suffix": "sums",
     "method": {"type": "reinforcement", "reinforcement": {"grader": {...}, "response_format": {...},
      "hyperparameters": {"batch_size": "auto", "n_epochs": 5, "reasoning_effort": "medium", ...}}}}

How the hosted service turns a multiplier or an 'auto' into numbers is not published; what they become here is said line
by line. The keys are in `tasks.schema.job`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tasks.data.drafts import short
from tasks.data.ingest import ingest
from tasks.data.questions import rank, together
from tasks.data.records import DataError, Problem, json_hash
from tasks.data.sources.openai import read_openai
from tasks.graders.jobs import json_schema, refuse_hopeless
from tasks.graders.openai import Spec, parse_spec
from tasks.graders.openai.schema import (
    LabelModel,
    Multi,
    Python,
    ScoreModel,
    SpecError,
    StringCheck,
    TextSimilarity,
    variables,
)
from tasks.graders.openai.templates import Variable, parts
from tasks.graders.openai.values import refuse_duplicates
from tasks.params import Params
from tasks.schema.dataset import OpenaiFiles
from tasks.schema.job import Answered, Hyperparameters, Job, Reinforcement

MOST_ROWS = {"train": 50_000, "validation": 1_000}
TEST_SHARE = 5  # one training row in so many is held out to test on, where no --test is given
EFFORT = {"low": 0.5, "default": 1.0, "medium": 1.0, "high": 2.0}  # of the model's completion budget
NUM_CHECKPOINTS = 3
FORMAT = "Answer with one JSON value of this JSON schema, and nothing else:\n"


class JobError(ValueError):
    """A job that cannot be honoured; the message names the file and each key, row or value."""


@dataclass
class Plan:
    """The sections of params.yaml that differ from the model's presets, and what was decided, a line each."""

    sections: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def say(self, key: str, asked: object, became: str) -> None:
        self.lines.append(f"{key} {json.dumps(asked, ensure_ascii=False)}: {became}")


def read_job(path: Path) -> tuple[Job, Spec]:
    """The job of a JSON file and its grader, both whole; JobError names each key that cannot be honoured."""
    try:
        job = Job.model_validate(json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_duplicates))
        spec = parse_spec(job.method.reinforcement.grader, f"{path}: method.reinforcement.grader")
        refuse_hopeless(spec, f"{path}: method.reinforcement.grader")
        json_schema(job.method.reinforcement.response_format)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(the file)'}: {_fault(e)}" for e in error.errors()]
        raise JobError("\n".join([f"{path}: {len(lines)} key(s) that cannot be honoured", *lines])) from None
    except SpecError as error:
        raise JobError(str(error)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: no JSON: {error}") from None
    except ValueError as error:
        raise JobError(f"{path}: {error}") from None
    except RecursionError:
        raise JobError(f"{path}: lists and objects are nested too deep") from None
    return job, spec


def _fault(error: ErrorDetails) -> str:
    """What is wrong with a key, with its value where that says more."""
    message, value = error["msg"].removeprefix("Value error, "), error["input"]
    if error["type"] in ("extra_forbidden", "value_error") or not isinstance(value, str | int | float):
        return message
    return f"{message}, not {json.dumps(value, ensure_ascii=False)[:100]}"


def read_rows(path: Path, split: str) -> tuple[list[Problem], int]:
    """The rows of a file, equal ones once, and how many that dropped. JobError where one cannot be honoured, or there
    are too many.
    """
    try:
        found = ingest(read_openai(OpenaiFiles(rows=str(path)), path.parent), None, f"read {path.name}")
    except DataError as error:
        raise JobError(str(error)) from None
    bad = [q for q in found.aside if not q.reason.startswith("same messages and item")]
    if bad:
        lines = [f"  line {q.line}: {q.reason}" for q in bad[:10]]
        raise JobError("\n".join([f"{path}: {len(bad)} row(s) that cannot be honoured", *lines]))
    if (most := MOST_ROWS.get(split)) and found.read["problem"] > most:
        raise JobError(f"{path}: {found.read['problem']} rows; a {split} file has {most:,} at most")
    return [picture.record.problem for picture in found.pictures], len(found.aside)


def refuse_shared(rows: dict[str, list[Problem]]) -> None:
    """JobError for messages that stand in two of the files, whatever their items: scores on them would say nothing."""
    seen: dict[str, str] = {}
    for split, problems in rows.items():
        for problem in problems:
            other = seen.setdefault(json_hash(problem.turns), split)
            if other != split:
                raise JobError(f"the same messages are in {other} and {split}; remove one: {short(problem.text)}")


def plan(job: Job, spec: Spec, base: Params, rows: dict[str, list[Problem]], files: dict[str, str]) -> Plan:
    """The study of a job on a model whose presets `base` holds. `rows` and `files` are those of 'train', 'validation'
    and, where there is one, 'test'.
    """
    refuse_shared(rows)
    made, method = Plan(), job.method.reinforcement
    for key in ("model", "training_file", "validation_file", "metadata"):
        if (value := getattr(job, key)) is not None:
            made.say(key, value, f"hosted; here {base.model.path}" if key == "model" else "hosted; not used")
    told = {key: value for key in Answered.model_fields if (value := getattr(job, key)) is not None}
    if told:
        named = ", ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in told.items())
        made.lines.append(f"{named}: hosted; not used")
    num_train = _plan_data(made, rows, files)
    _plan_training(made, method.hyperparameters, base, num_train)
    seed = job.seed or 0
    made.say("seed", job.seed, str(seed))
    made.sections["grid"] = {"k": [num_train], "seed": [seed], "algorithm": ["grpo"], "policy": ["sft", "grpo"]}
    _plan_reward(made, method, spec, base)
    for line in _missing(spec, rows):
        made.lines.append(line)
    return made


def _plan_data(made: Plan, rows: dict[str, list[Problem]], files: dict[str, str]) -> int:
    """The data set; returns how many rows are left to learn from."""
    num_train, test = len(rows["train"]), "test" in rows
    shown = sorted(rank("train", json_hash(problem.turns)) for problem in rows["train"])  # as `tasks.prepare` holds out
    num_test = 0 if test else together(shown, max(1, num_train // TEST_SHARE))
    if num_train - num_test < 1:
        raise JobError(f"{files['train']}: {num_train} row(s), of which none is left to learn from; give --test")
    held = (
        "the file given" if test else f"{num_test} of the training rows, which are not trained on (--test gives others)"
    )
    made.lines.append(
        f"rows: {num_train - num_test} to train on, {len(rows['validation'])} to validate on; test: {held}"
    )
    made.sections["dataset"] = {
        "source": "openai",
        "train": {"rows": files["train"]},
        "val": {"rows": files["validation"]},
        "test": {"rows": files["test"]} if test else None,
        "categories": None,
        "test_categories": None,
        "num_val": None,
        "num_test": None if test else num_test,
        "max_quarantined": 1.0,  # equal rows alone: the import has read every other
    }
    made.sections["slice"] = {"num_absent": 0, "allow_fewer": False, "categories": None}
    return num_train - num_test


def _plan_training(made: Plan, asked: Hyperparameters, base: Params, num_train: int) -> None:
    rft = base.rft

    def given(name: str, auto: Any) -> Any:
        value = getattr(asked, name)
        return auto if value == "auto" else value

    batch = min(given("batch_size", rft.prompts_per_step), num_train)
    epochs = given("n_epochs", min(50, max(1, round(rft.steps * batch / num_train))))
    steps = ceil(epochs * num_train / batch)
    group = max(2, round(rft.num_generations * given("compute_multiplier", 1.0)))
    rate = rft.learning_rate * given("learning_rate_multiplier", 1.0)
    budget = round(rft.max_completion_length * EFFORT[asked.reasoning_effort])
    every, samples = min(given("eval_interval", rft.eval_steps), steps), given("eval_samples", 1)
    made.say("batch_size", asked.batch_size, f"{batch} prompts a step")
    made.say("n_epochs", asked.n_epochs, f"{epochs} passes over {num_train} rows, {steps} steps")
    made.say("learning_rate_multiplier", asked.learning_rate_multiplier, f"learning rate {rate:g}")
    made.say("compute_multiplier", asked.compute_multiplier, f"{group} completions a prompt")
    made.say(
        "eval_interval", asked.eval_interval, f"validation every {every} steps, {NUM_CHECKPOINTS} checkpoints kept"
    )
    how = (
        "1 greedy answer a row"
        if samples == 1
        else f"{samples} answers a row, sampled at temperature {base.grade.temperature:g}"
    )
    made.say("eval_samples", asked.eval_samples, f"validation on {how}")
    made.say("reasoning_effort", asked.reasoning_effort, f"at most {budget} tokens a completion, thinking included")
    made.sections["rft"] = {
        "engine": "kshot",
        "steps": steps,
        "warmup_steps": min(rft.warmup_steps, steps - 1),
        "prompts_per_step": batch,
        "num_generations": group,
        "learning_rate": rate,
        "max_completion_length": budget,
        "eval_steps": every,
        "patience": steps,  # a hosted job never stops early
        "num_checkpoints": NUM_CHECKPOINTS,
    }
    batches = 32 if base.model.lora else base.grade.batch_size  # what one GPU holds beside a model of billions
    made.sections["grade"] = {"batch_size": batches, "max_new_tokens": budget, "val_samples": samples}


def _plan_reward(made: Plan, method: Reinforcement, spec: Spec, base: Params) -> None:
    schema, target = json_schema(method.response_format), sft_target(spec)
    graders = list(spec.graders.values()) if isinstance(spec, Multi) else [spec]
    if any(isinstance(grader, Python) for grader in graders):
        made.lines.append("python graders: in the sandbox (docs/sandbox.md)")
    for name in dict.fromkeys(g.model for g in graders if isinstance(g, ScoreModel | LabelModel)):
        made.lines.append(f"judge {name}: asked at reward.job.judge_url, or at OPENAI_BASE_URL where that is null")
    made.sections["reward"] = {
        "job": {
            "grader": method.grader,
            "response_format": method.response_format,
            "judge_url": None,
            "target": target,
        }
    }
    made.lines.append("warm-up: none, as hosted")
    made.sections["warmup"] = {"steps": 0, "epochs": None}
    if target is None:
        made.lines.append("SFT: no grader compares the output with a text of the row, so SFT cannot be taught: 0 steps")
        made.sections["sft"] = {"steps": 0, "epochs": None}
    else:
        made.lines.append(f"SFT: taught the grader's reference, {target}")
    if schema is not None:
        made.lines.append("response_format: asked for in the system message and checked; decoding is not constrained")
        made.sections["prompt"] = {"job": FORMAT + json.dumps(schema, ensure_ascii=False)}


def sft_target(spec: Spec) -> str | None:
    """The template of an answer that the grader takes for right: the reference, of the row alone, that the whole output
    is compared with. None where there is no such grader.
    """
    for grader in spec.graders.values() if isinstance(spec, Multi) else [spec]:
        compares = isinstance(grader, TextSimilarity) or (
            isinstance(grader, StringCheck) and grader.operation in ("eq", "like", "ilike")
        )
        if not compares or parts(grader.input) != ("", Variable(("sample", "output_text")), ""):
            continue
        named = [part[0] for part in parts(grader.reference) if isinstance(part, Variable)]
        if named and set(named) == {"item"}:
            return grader.reference
    return None


def _missing(spec: Spec, rows: dict[str, list[Problem]]) -> Iterator[str]:
    """A line for each key of the item that templates name and rows do not hold: their grades are 0."""
    graders = spec.graders.values() if isinstance(spec, Multi) else [spec]
    named = [variable for grader in graders for variable in variables(grader)]
    keys = sorted({str(variable[1]) for variable in named if variable[0] == "item"})
    for split, problems in rows.items():
        for key in keys:
            if num := sum(key not in problem.item for problem in problems):
                yield f"warning: {num} of {len(problems)} {split} rows lack {key!r}, which the grader names: graded 0"
