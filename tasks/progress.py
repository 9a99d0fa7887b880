"""How far a training is: a bar on a terminal, lines in a log.

    progress: sft step 20 of 80, val_reward=0.731, 01:05 left

`tasks.stage` reads them there for Prefect.
"""

import re
import sys
from dataclasses import dataclass

from tqdm import tqdm

FORMAT = "progress: {desc} step {n_fmt} of {total_fmt}{postfix}, {remaining} left"
LINE = re.compile(r"progress: ([\w-]+) step (\d+) of ([1-9]\d*), (.+)")
SECONDS = 5.0  # between two lines at least, so that a log stays short


@dataclass(frozen=True)
class Progress:
    """`said` is the rest of the line: the rewards that are known and the time left."""

    name: str
    step: int
    steps: int
    said: str


def read_progress(line: str) -> Progress | None:
    """What a line of a log tells of progress; None where it is another line."""
    found = LINE.fullmatch(line.strip())
    return Progress(found[1], int(found[2]), int(found[3]), found[4]) if found else None


class _Lines:
    """A file that makes each state of a bar a line of stderr."""

    def write(self, text: str) -> None:
        if text := text.strip():
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass  # each line has been flushed


def progress_bar(name: str) -> tqdm:
    """A bar of steps; `reset` gives it its total."""
    if sys.stderr.isatty():
        return tqdm(desc=name, unit="step")
    # the delay keeps it from showing a state before its total is known
    return tqdm(desc=name, file=_Lines(), bar_format=FORMAT, mininterval=SECONDS, miniters=1, delay=1e-9)
