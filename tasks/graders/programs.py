"""Answers that are a program, whose result is graded like a number (ReFT's P-CoT; PAL, arXiv 2211.10435).

    <think></think><answer>def solution():
        a = 3 + 4
        return a</answer>

The program runs in `tasks.graders.sandbox`, never here; what counts is what `solution()` returns, not what it prints. A
program that crashes, is stopped or returns no number earns nothing at all.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from tasks.data.numbers import Quantity, parse_number, plain
from tasks.graders.frame import Failure, Malformed, frame, unframe
from tasks.graders.labels import CHOICE
from tasks.graders.sandbox import WORKERS, Limits, Ran, Sandbox
from tasks.graders.sandbox import Failure as Ended

FUNCTION = "solution"
MOST = 1e15  # a result beyond is no answer, and a whole one is no longer exact as a float
FENCE = re.compile(r"```(?:python)?\n(.*?)\n?```", re.DOTALL)
LIMITS = {Ended.TIMEOUT, Ended.MEMORY, Ended.OUTPUT, Ended.DISK, Ended.SOURCE_TOO_LARGE}
NO_VALUE = {Ended.BAD_RESULT, Ended.NO_RESULT}


@dataclass(frozen=True)
class ParsedProgram:
    """The program. With a `failure` it is None; `well_formed` earns the format reward."""

    source: str | None = None
    failure: Failure | None = None
    well_formed: bool = False


@dataclass(frozen=True)
class Result:
    """What `solution()` returned: a finite number or a letter; with a `failure` neither."""

    quantity: Quantity | None = None
    letter: str | None = None
    failure: Failure | None = None

    @property
    def text(self) -> str | None:
        return plain(self.quantity.value) if self.quantity else self.letter


@lru_cache(maxsize=4)
def sandboxed(seconds: float, memory_mb: int, isolation: str) -> Sandbox:
    """A sandbox with these limits that starts with the first call, and lives as long as this process."""
    return Sandbox(Limits(seconds=seconds, memory_mb=memory_mb), isolation, WORKERS)


def parse_program(completion: str) -> ParsedProgram:
    """The whole text of the single `<answer>`, blank lines included, without a Markdown fence around it."""
    try:
        framed = unframe(completion)
    except Malformed as error:
        return ParsedProgram(failure=error.failure)
    fenced = FENCE.fullmatch(framed.content)
    source = fenced[1] if fenced else framed.content
    if not source.strip():
        return ParsedProgram(failure=Failure.EMPTY_ANSWER)
    return ParsedProgram(source, well_formed=framed.whole)


def format_program(source: str) -> str:
    """The text that `parse_program` reads back as this program; ValueError where it could not be."""
    text = frame(source, "")
    parsed = parse_program(text)
    if not parsed.well_formed or parsed.source != source:
        raise ValueError(
            f"not a readable program ({parsed.failure or 'bad_format'}): {text[:200]!r}; "
            "give a program without tags, a fence or outer space"
        )
    return text


def read_result(ran: Ran) -> Result:
    """What came of a program's `solution()`; one that broke is graded 0."""
    if ran.failure is not None:
        return Result(failure=_failure(ran.failure))
    value = ran.value
    if isinstance(value, str) and CHOICE.fullmatch(value):
        return Result(letter=value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST:  # NaN too
        return Result(failure=Failure.BAD_RESULT)
    return Result(quantity=parse_number(plain(float(value))))  # a program may round: 3.33 has two decimals


def _failure(ended: Ended) -> Failure:
    if ended in LIMITS:
        return Failure.PROGRAM_LIMIT
    return Failure.BAD_RESULT if ended in NO_VALUE else Failure.BAD_PROGRAM
