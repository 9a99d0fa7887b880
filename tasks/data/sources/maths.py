"""Word problems as their makers ship them, a JSON list a file.

SVAMP   (Patel et al. 2021)    {"ID", "Body", "Question", "Equation": "( 8.0 - 3.0 )", "Answer": 5.0, "Type"}
MathQA  (Amini et al. 2019)    {"Problem", "Rationale", "options": "a ) 38 , b ) 27.675 , ...", "correct": "a",
                                "category", ...}; some options are the text of a Python list
ReFT    (arXiv 2401.08967)     {"item_id", "question", "answer_cot", "answer_value": "203.0"} of mwp_ReFT's data/;
                                the chain is missing from its test sets, and is a program in *_python_sdp.json
"""

import re
from collections.abc import Callable
from pathlib import Path

from tasks.data.drafts import Draft, Reading, parse_json, read_text, short
from tasks.data.numbers import parse_number, plain
from tasks.data.records import DataError, Problem
from tasks.data.sources.problems import answer_text
from tasks.schema.dataset import MathqaFiles, ReftFiles, SvampFiles

EXPRESSION = re.compile(r"[0-9.()+*/ -]{1,400}")
OPTION = re.compile(r"(?:^|[,\[]\s?)['\"]?\s?([a-e]) \) ")


def _texts(row: dict, *keys: str) -> list[str]:
    """The values of these keys; ValueError for one that is not there or no text."""
    for key in keys:
        if key not in row:
            raise ValueError(f"no key: {key!r}")
        if not isinstance(row[key], str):
            raise ValueError(f"{key} is not text: {short(row[key])}")
    return [row[key].strip() for key in keys]


def svamp_problem(row: dict, task: str) -> Problem:
    body, question, equation = _texts(row, "Body", "Question", "Equation")
    if "Answer" not in row:
        raise ValueError("no key: 'Answer'")
    if not EXPRESSION.fullmatch(equation):
        raise ValueError(f"Equation is no arithmetic: {short(equation)}")
    answer = answer_text(row["Answer"])
    shown = re.sub(
        r"\.0\b", "", equation.removeprefix("( ").removesuffix(" )") if equation.count("(") == 1 else equation
    )
    chain = f"{shown} = {answer}" if task == "maths" else f"def solution():\n    return {shown}"
    text = f"{body}{'' if body.endswith(('.', ',', '?', '!')) else '.'} {question}"
    return Problem(task, text, answer, (chain,), row.get("Type") if isinstance(row.get("Type"), str) else None)


def options_of(text: str) -> dict[str, str]:
    """{letter: option} of MathQA's 'a ) 38 , b ) 27.675 , c ) none of these'; ValueError otherwise."""
    found = list(OPTION.finditer(text))
    if len(found) < 2:
        raise ValueError(f"options are not 'a ) ... , b ) ...': {short(text)}")
    ends = [match.start() for match in found[1:]] + [len(text)]
    options = {m[1]: text[m.end() : end].strip(" ,'\"]") for m, end in zip(found, ends, strict=True)}
    if len(options) < len(found):
        raise ValueError(f"an option stands twice: {short(text)}")
    return options


def mathqa_problem(row: dict, answers: str) -> Problem:
    problem, rationale, listed, correct = _texts(row, "Problem", "Rationale", "options", "correct")
    options = options_of(listed)
    if correct not in options:
        raise ValueError(f"correct is none of the options: {short(correct)}")
    chains = (rationale.strip("\" '"),) if rationale.strip("\" '") else ()
    category = row.get("category") if isinstance(row.get("category"), str) else None
    if answers == "choice":
        shown = " , ".join(f"{letter} ) {option}" for letter, option in options.items())
        return Problem("maths", f"{problem}\n{shown}", correct, chains, category)
    number = parse_number(options[correct])
    if number is None:
        raise ValueError(f"the right option is no number: {short(options[correct])}")
    return Problem("maths", problem, plain(number.value), chains, category)


def reft_problem(row: dict, task: str) -> Problem:
    question, value = _texts(row, "question", "answer_value")
    chain = row.get("answer_cot", "")
    if not isinstance(chain, str):
        raise ValueError(f"answer_cot is not text: {short(chain)}")
    chain = chain.strip()
    if chain and chain.startswith("def ") != (task == "program"):
        raise ValueError(
            f"answer_cot is {'no' if task == 'program' else 'a'} program, and task is {task}: {short(chain)}"
        )
    number = parse_number(value)
    return Problem(task, question, plain(number.value) if number else value, (chain,) if chain else ())


def _read(rows: str, problem_of: Callable[[dict], Problem]) -> Reading:
    path = Path(rows)
    try:
        items = parse_json(read_text(path, "give the .json as `rows`"))
    except ValueError as error:
        raise error if isinstance(error, DataError) else DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: not a JSON list of problems; give the file as its makers ship it")
    reading = Reading(path.parent)
    for number, row in enumerate(items, start=1):
        item = f"row {number}"
        try:
            if not isinstance(row, dict):
                raise ValueError(f"not a JSON object: {short(row)}")
            reading.add(Draft(item, None, str(path), problem=problem_of(row)))
        except ValueError as error:
            reading.refuse(path, "problem", item, str(error))
    return reading


def read_svamp(files: SvampFiles, scratch: Path) -> Reading:
    return _read(files.rows, lambda row: svamp_problem(row, files.task))


def read_mathqa(files: MathqaFiles, scratch: Path) -> Reading:
    return _read(files.rows, lambda row: mathqa_problem(row, files.answers))


def read_reft(files: ReftFiles, scratch: Path) -> Reading:
    return _read(files.rows, lambda row: reft_problem(row, files.task))
