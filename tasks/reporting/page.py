"""What the two templates show, and their rendering. A model's text is escaped in both."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from tasks.params import Params
from tasks.reporting import cases, fairness, words
from tasks.reporting.cases import Picture, View, Writer
from tasks.reporting.compare import Comparison
from tasks.reporting.provenance import commit, hashes, repeat, versions
from tasks.reporting.published import published
from tasks.reporting.selection import Case, Outcome
from tasks.reporting.study import Study
from tasks.reporting.tables import COSTS, costs, failures
from tasks.reporting.theme import DARK, LIGHT

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
NUMBER_SIGN = re.compile(r"(?<![\w-])-(?=\d)")
TAGS = re.compile(r"(</?(?:think|answer)>)")
SCRIPT = Path(__file__).with_name("cases.js")


@dataclass(frozen=True)
class Plot:
    """A figure of the page: an <svg> element. `file` holds it for Markdown, relative to the report."""

    file: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Panels:
    """A quantity of training, a small plot a k."""

    heading: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Cell:
    """A case of report.md; `png` is its picture with the boxes drawn in."""

    case: Case
    file: str
    png: bytes


def describe(case: Case) -> str:
    """The picture in words, for those who do not see it."""
    said = "; ".join(
        f"{words.name(policy)}: {words.stated(answer)}, reward {words.fixed(answer.reward)}"
        for policy, answer in case.answers.items()
    )
    asked = f", asked for '{case.sft.asked}'" if case.sft.asked else ""
    return f"Test picture {case.sft.record_id}{asked}. Ground truth: {words.truth(case.sft)}; {said}."


def context(
    params: Params,
    study: Study,
    comparisons: Sequence[Comparison],
    plots: dict[str, Plot],
    training: Sequence[Panels],
    outcomes: Sequence[Outcome],
    shown: tuple[Sequence[View], Sequence[Picture]],
    cells: Sequence[tuple[Outcome, Sequence[Cell]]],
    pool: Path,
    command: str,
) -> dict:
    """All that the templates read. `command` makes this report again from the same grades."""
    return {
        "params": params,
        "study": study,
        "comparisons": comparisons,
        "headlines": [words.headline(study, comparisons, a, params.report.confidence) for a in study.grid.algorithm],
        "about": words.about_the_score(params, study),
        "extent": words.extent(study),
        "existence": words.existence(study),
        "matched": words.matched(study),
        "unfinished": words.unfinished(study),
        "shown_metrics": words.shown_metrics(study),
        "warnings": fairness.differences(study),
        "unknown": fairness.unknown(study),
        "checked": fairness.checked(study),
        "asked": lambda answer: words.asked(params, answer),
        "graded": words.graded,
        "truth": words.truth,
        "plots": plots,
        "training": training,
        "unmeasured": words.unmeasured(params, study),
        "compared": words.compared(study),
        "opposed": words.opposed(study, comparisons),
        "published": published(params.report.published, comparisons),
        "costs": costs(study, comparisons),
        "cost_headings": COSTS,
        "interval": f"{words.percent(params.report.confidence)} interval",
        "outcomes": outcomes,
        "views": shown[0],
        "pictures": shown[1],
        "cells": cells,
        "chosen": words.about_the_selection(params, study, len(shown[0]), len(cases.drawn(outcomes))),
        "titles": words.outcome_titles(study.grid.algorithm),
        "titles_of": lambda algorithm: words.outcome_titles([algorithm]),
        "policies": ["base", *study.grid.policy],
        "rft": words.rft(study.grid.algorithm),
        "failures": failures(study),
        "configuration": yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True),
        "versions": versions(),
        "hashes": hashes(params, study, pool),
        "commit": commit(),
        "repeat": repeat(command),
        "describe": describe,
        "algorithms": study.grid.algorithm,
        "script": Markup(SCRIPT.read_text(encoding="utf-8")),
    }


def case_writer(params: Params, study: Study) -> Writer:
    """A case as an element of the page."""
    told = {"asked": lambda answer: words.asked(params, answer), "graded": words.graded, "truth": words.truth}
    template = _environment().get_template("case.html.j2")
    shared = told | {"describe": describe, "algorithms": study.grid.algorithm}
    return lambda case, picture, marks: template.render(shared, case=case, picture=picture, marks=marks)


def render(template: str, shown: dict) -> str:
    """`template` is a file beside this one; those that end in .html.j2 escape every value. A page extends base.html.j2
    and says its `algorithms`, which have colours, and its `script` (one that runs, by its hash) or None.
    """
    return _environment().get_template(template).render(shown)


def _environment() -> Environment:
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
        "si": words.si,
        "typeset": lambda text: minus(text).replace("k = ", "k\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"),
        "tagged": TAGS.split,
        "markdown": lambda text: MARKDOWN_SIGNS.sub(r"\\\1", text),
        "fence": fence,
        "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }
    environment.globals |= {"light": LIGHT, "dark": DARK}
    return environment


def minus(text: str) -> str:
    """A hyphen before a number becomes a minus sign."""
    return NUMBER_SIGN.sub("\N{MINUS SIGN}", text)


def fence(text: str) -> str:
    """`text` as a code block of Markdown that it cannot close itself."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    bar = "`" * max(3, longest + 1)
    return f"{bar}text\n{text}\n{bar}"
