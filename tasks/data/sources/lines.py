"""Lines of a JSONL file, bounded in length, with their numbers, and the drafts that they are."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.data.drafts import Draft, Reading, parse_json, short
from tasks.data.records import DataError, Problem

MAX_LINE = 4_000_000  # bytes


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of each line with content; of one that is too long, the first MAX_LINE + 1."""
    with path.open("rb") as file:
        line = 0
        while raw := file.readline(MAX_LINE + 1):
            line += 1
            rest = raw
            while len(rest) > MAX_LINE and not rest.endswith(b"\n"):  # the rest of a line that is too long
                rest = file.readline(MAX_LINE + 1)
            if raw.strip():
                yield line, raw


def parse_line(raw: bytes, line: int) -> object:
    """The JSON value of a line; ValueError with the reason where it has none. The first may begin with a BOM."""
    if len(raw) > MAX_LINE:
        raise ValueError(f"line over {MAX_LINE} bytes: it begins {short(raw[:40])}")
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from None
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def read_rows(path: Path, root: Path, kind: str, a: str, draft_of: Callable[[object, Path, int], Draft]) -> Reading:
    """The draft of each line's value. A line of which the JSON or `draft_of` raises ValueError is put aside as an item
    of `kind`. DataError for a file without a line; `a` says what a line is.
    """
    reading = Reading(root)
    for line, raw in lines(path):
        try:
            reading.add(draft_of(parse_line(raw, line), path, line))
        except ValueError as error:
            reading.refuse(path, kind, f"line {line}", str(error), line)
    if not reading.read:
        raise DataError(f"{path}: no line with content; give one JSON object a {a}")
    return reading


def read_problem_rows(path: Path, a: str, problem_of: Callable[[object], Problem]) -> Reading:
    """`read_rows` of problems in words, which need no folder of pictures."""

    def draft(value: object, path: Path, line: int) -> Draft:
        return Draft(f"line {line}", None, str(path), line, problem=problem_of(value))

    return read_rows(path, path.parent, "problem", a, draft)
