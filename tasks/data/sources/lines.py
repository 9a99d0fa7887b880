"""Lines of a JSONL file, bounded in length, with their numbers."""

from collections.abc import Iterator
from pathlib import Path

from tasks.data.drafts import parse_json, short

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
