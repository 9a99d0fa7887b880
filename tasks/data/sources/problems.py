"""Problems in words, UTF-8, one a line: our own rows, and GSM8K's.

    {"question": "Ann has three sevens ...", "answer": "7",       the answer may be a JSON number
     "chains": ["3 + 4 = 7"], "category": "sums", "task": "maths"}   these three are optional

`task` is maths (a number, or a letter of multiple choice; the default), program or ranking. `chains` are worked
solutions for SFT: of a program, programs that define `solution()`. The answer of a ranking is the right name, or a list
of names that begins with it: SFT is taught to state the others after it. A text is one name, commas and all.

    {"question": "...", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"}       GSM8K (arXiv 2110.14168)

A line with an unknown key is put aside, since a typo would otherwise hide chains.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from tasks.data.drafts import Reading, existing, short, text_fault
from tasks.data.records import Problem, TextTask
from tasks.data.sources.lines import read_problem_rows
from tasks.schema.dataset import Gsm8kFiles, ProblemsFiles

TASKS = tuple(task for task in get_args(TextTask) if task != "job")  # jobs have rows of their own
KEYS = {"question", "answer", "chains", "category", "task"}
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's marks: '48/2 = <<48/2=24>>24'


def answer_text(value: object) -> str:
    """An answer as text: a number without '.0'; ValueError with the reason where it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"answer is neither text nor a number: {short(value)}")
    return value.strip()


def _object(row: object) -> dict:
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {short(row)}")
    if missing := sorted({"question", "answer"} - row.keys()):
        raise ValueError(f"no key: {missing[0]!r}")
    return row


def _own(row: object) -> Problem:
    row = _object(row)
    if unknown := sorted(row.keys() - KEYS):
        raise ValueError(f"unknown key: {short(unknown[0])}; known are {', '.join(sorted(KEYS))}")
    task, chains, category = row.get("task", "maths"), row.get("chains", []), row.get("category")
    if task not in TASKS:
        raise ValueError(f"task is none of {', '.join(TASKS)}: {short(task)}")
    if not isinstance(chains, list):
        raise ValueError(f"chains is not a list: {short(chains)}")
    if category is not None and (fault := text_fault(category, "category")):
        raise ValueError(fault)
    answer, *others = _names(row["answer"]) if task == "ranking" else [answer_text(row["answer"])]
    return Problem(task, row["question"], answer, tuple(chains), category, others=tuple(others))


def _names(value: object) -> list[str]:
    """The right name and those to state after it; ValueError with the reason where one is none."""
    names = list(map(answer_text, value)) if isinstance(value, list) and value else [answer_text(value)]
    if nameless := [name for name in names if not any(map(str.isalnum, name))]:
        raise ValueError(f"answer names nothing: {short(nameless[0])}")
    return names


def _gsm8k(row: object) -> Problem:
    row = _object(row)
    chain, mark, answer = row["answer"].rpartition("####") if isinstance(row["answer"], str) else ("", "", "")
    if not mark:
        raise ValueError(f"no '####' before the answer: {short(row['answer'])}")
    chain = CALCULATOR.sub("", chain).strip()
    return Problem("maths", row["question"], answer_text(answer), (chain,) if chain else ())


def _read(rows: str, problem_of: Callable[[object], Problem]) -> Reading:
    return read_problem_rows(existing(Path(rows), "file", "give the .jsonl as `rows`"), "problem", problem_of)


def read_problems(files: ProblemsFiles, scratch: Path) -> Reading:
    return _read(files.rows, _own)


def read_gsm8k(files: Gsm8kFiles, scratch: Path) -> Reading:
    return _read(files.rows, _gsm8k)
