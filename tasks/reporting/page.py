"""What the two templates show, and their rendering. A model's text is escaped in both."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from tasks.params import Params
from tasks.reporting import words
from tasks.reporting.compare import Comparison
from tasks.reporting.provenance import commit, versions
from tasks.reporting.selection import Outcome, Pair
from tasks.reporting.study import Study
from tasks.reporting.tables import failures, trainings
from tasks.reporting.theme import DARK, LIGHT

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
NUMBER_SIGN = re.compile(r"(?<![\w-])-(?=\d)")


@dataclass(frozen=True)
class Plot:
    """A figure on light and on dark paper (PNG bytes); `file` holds the light one, relative to the report."""

    file: str
    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Cell:
    """A question of the picture grid; `png` is its picture with the boxes drawn in."""

    pair: Pair
    file: str
    png: bytes


def describe(pair: Pair, algorithm: str) -> str:
    """The picture in words, for those who do not see it."""
    said = "; ".join(
        f"{words.name(policy)}: {words.stated(answer)}, reward {words.fixed(answer.reward)}"
        for policy, answer in (("sft", pair.sft), (algorithm, pair.rft))
    )
    asked = f", asked for '{pair.sft.asked}'" if pair.sft.asked else ""
    return f"Test picture {pair.sft.record_id}{asked}. Ground truth: {words.truth(pair.sft)}; {said}."


def context(
    params: Params,
    study: Study,
    comparisons: Sequence[Comparison],
    plots: dict[str, Plot],
    outcomes: Sequence[tuple[Outcome, list[Cell]]],
    command: str,
) -> dict:
    """All that the templates read. `command` makes this report again from the same grades."""
    made_at = commit()
    checkout = [f"git checkout {made_at.split()[0]}"] if made_at else []
    repeat = [*checkout, "dvc repro   # the whole study", f"{command}   # this report from the grades alone"]
    return {
        "params": params,
        "study": study,
        "comparisons": comparisons,
        "headlines": [words.headline(study, comparisons, a, params.report.confidence) for a in study.grid.algorithm],
        "about": words.about_the_score(params, study),
        "extent": words.extent(study),
        "existence": words.existence(study),
        "shown_metrics": words.shown_metrics(study),
        "asked": lambda answer: words.asked(params, answer),
        "graded": words.graded,
        "truth": words.truth,
        "confident": ", with its confidence" if "detection" in study.tasks else "",
        "plots": plots,
        "trainings": trainings(study),
        "interval": f"{words.percent(params.report.confidence)} interval",
        "outcomes": outcomes,
        "chosen": words.about_the_selection(params, study),
        "titles": words.outcome_titles(study.grid.algorithm[0]),
        "rft": study.grid.algorithm[0],
        "failures": failures(study),
        "configuration": yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True),
        "versions": versions(),
        "commit": made_at,
        "repeat": "\n".join(repeat),
        "describe": describe,
        "light": LIGHT,
        "dark": DARK,
    }


def render(template: str, shown: dict) -> str:
    """`template` is a file beside this one; those that end in .html.j2 escape every value."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": words.name,
        "fixed": words.fixed,
        "signed": lambda value: minus(words.signed(value)),
        "fixed_span": lambda interval: minus(words.span(interval, words.fixed)),
        "signed_span": lambda interval: minus(words.span(interval, words.signed)),
        "typeset": lambda text: minus(text).replace("k = ", "k\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"),
        "data_uri": lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
        "markdown": lambda text: MARKDOWN_SIGNS.sub(r"\\\1", text),
        "fence": fence,
    }
    return environment.get_template(template).render(shown)


def minus(text: str) -> str:
    """A hyphen before a number becomes a minus sign."""
    return NUMBER_SIGN.sub("\N{MINUS SIGN}", text)


def fence(text: str) -> str:
    """`text` as a code block of Markdown that it cannot close itself."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    bar = "`" * max(3, longest + 1)
    return f"{bar}text\n{text}\n{bar}"
