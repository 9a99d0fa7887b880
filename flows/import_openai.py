"""Make a study of an OpenAI reinforcement fine-tuning job.

    python -m flows.import_openai job.json --train train.jsonl --validation valid.jsonl --model qwen3_0_6b
    python -m flows.sweep +experiment=NAME

job.json is the body of the request that creates the job, or the job as the API returns it. Says what each key became
and writes NAME.yaml in conf/experiment/, conf/dataset/ and conf/reward/. What cannot be honoured is refused by name:
exit code 2, and nothing is written. See docs/openai_jobs.md.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from flows.compose import CONF, compose
from tasks.jobs import Job, JobError, plan, read_job, read_rows
from tasks.params import ParamsError, validate

GROUPS = ("dataset", "reward")  # of an imported study, beside its experiment
MADE = "# Made by: python -m flows.import_openai"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
EXPERIMENT = """\
# @package _global_
{made}
#
#   python -m flows.sweep +experiment={name}
defaults:
{defaults}

"""


def presets(model: str) -> dict[str, str]:
    """The groups that suit a model: those of the tiny one where all weights are trained, else those of an adapter."""
    size = "lora" if compose([f"model={model}"])["model"]["lora"] else "tiny"
    prompt = "visual_rft" if size == "lora" else "short"
    return {"model": model, "prompt": prompt, "sft@warmup": size, "sft": size, "rft": size}


def merged(base: Mapping, changes: Mapping) -> dict:
    """`base` with the values of `changes`; sections that differ in kind replace each other whole."""
    found = dict(base)
    for name, section in changes.items():
        replaced = name in GROUPS or not isinstance(section, Mapping)
        found[name] = section if replaced else {**base[name], **section}
    return found


def escaped(value: object) -> object:
    """`value` with its '${' as OmegaConf writes them where they are meant as they stand."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: escaped(inner) for key, inner in value.items()}
    return [escaped(inner) for inner in value] if isinstance(value, list) else value


def to_yaml(value: object) -> str:
    return yaml.safe_dump(escaped(value), sort_keys=False, allow_unicode=True, width=120)


def import_job(job: Path, files: dict[str, Path], model: str, name: str | None, command: str) -> list[str]:
    """Write the three files; returns what to tell. JobError or ParamsError where something cannot be honoured."""
    body, spec = read_job(job)
    rows, dropped = {}, []
    for split, path in files.items():
        rows[split], num = read_rows(path, split)
        dropped += [f"{path}: {num} row(s) dropped, equal to another in messages and item"] * bool(num)
    name = name or _name(body, job)
    targets = {group: CONF / group / f"{name}.yaml" for group in ("experiment", *GROUPS)}
    for path in targets.values():
        if path.exists() and not path.read_text(encoding="utf-8").partition("defaults")[0].count(MADE):
            raise JobError(f"{path} is there already, and was not made by this command: give another --name")
    groups = presets(model)
    base = compose([f"{group}={option}" for group, option in groups.items()])
    paths = {split: os.path.relpath(path, CONF.parent) for split, path in files.items()}
    made = plan(body, spec, validate(base, "conf/"), rows, paths)
    for key in ("k_own", "k_matched", "init", "k_warmup"):  # the schema makes them of the rest
        del base["grid"][key]
    validate(merged(base, {"study": name, **made.sections}), str(job))
    options = {"dataset": name, **groups, "reward": name}
    defaults = "\n".join(f"  - override /{group}: {option}" for group, option in options.items())
    head = EXPERIMENT.format(made=f"{MADE} {command}", name=name, defaults=defaults)
    rest = {"study": name} | {key: section for key, section in made.sections.items() if key not in GROUPS}
    texts = {group: f"{MADE} {command}\n{to_yaml(made.sections[group])}" for group in GROUPS}
    for group, text in {**texts, "experiment": head + to_yaml(rest)}.items():
        targets[group].write_text(text, encoding="utf-8")
    written = [f"wrote {os.path.relpath(path)}" for path in targets.values()]
    return [*dropped, *made.lines, *written, f"run: python -m flows.sweep +experiment={name}"]


def _name(body: Job, job: Path) -> str:
    given = body.suffix or body.user_provided_suffix or job.resolve().parent.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", given).strip("_-") or "job"
    return name if _is_text(name) else f"job_{name}"


def _is_text(name: str) -> bool:
    """Whether YAML, OmegaConf and Hydra's command line read it as text: no number, date, yes or no, or null."""
    read = OmegaConf.create(f"- {name}")[0], OverridesParser.create().parse_override(f"x={name}").value()
    return yaml.safe_dump([name]) == f"- {name}\n" and all(isinstance(value, str) for value in read)


def _option(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: letters, digits, _ and - alone")
    return text


def _study(text: str) -> str:
    if not _is_text(_option(text)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no text to YAML or Hydra (but a number, a date, yes or no, null): give job_{text}"
        )
    return text


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.import_openai", description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="the fine-tuning job, JSON: the request's body or the API's answer")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--test", type=Path, help="rows to report on; without, a fifth of the training rows")
    parser.add_argument("--model", type=_option, required=True, help="an option of conf/model: tiny, qwen3_0_6b, ...")
    parser.add_argument("--name", type=_study, help="of the study; without, the job's suffix or its folder's name")
    given = parser.parse_args(words)
    files = {"train": given.train, "validation": given.validation} | ({"test": given.test} if given.test else {})
    try:
        told = import_job(given.job, files, given.model, given.name, shlex.join(words))
    except (JobError, ParamsError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
