"""Whether the flow that started a stage is still at work, for workers that are no children of its process.

A flow writes a new count to .rft/flow every second, and at its end a last word. A worker stops its stage where it reads
that word, the count of another flow, or `PATIENCE` times nothing new: so nothing trains on for a flow that was killed
on another machine. Counts are compared, not times, because the clocks of machines differ.
"""

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

FILE = Path(".rft/flow")
BEAT_SECONDS = 1.0
POLL_SECONDS = 0.2  # how often a worker looks
PATIENCE = 300  # looks without news: a minute
ENDED = "ended"


@dataclass(frozen=True)
class Flow:
    """A flow at work in `workspace`, an absolute path that is the same folder on every worker."""

    workspace: Path
    token: str


def _say(flow: Flow, word: str) -> None:
    new = (flow.workspace / FILE).with_suffix(".new")
    new.write_text(f"{flow.token} {word}")
    os.replace(new, flow.workspace / FILE)  # so that nobody reads half of it


@contextmanager
def at_work() -> Iterator[Flow]:
    """A flow in the current folder that its workers can hear until the block is left, by an exception too."""
    flow, stop = Flow(Path.cwd(), uuid4().hex), threading.Event()

    def beat() -> None:
        for count in itertools.count(1):
            if stop.wait(BEAT_SECONDS):
                return
            try:
                _say(flow, str(count))
            except OSError:  # a full disk, or a file server away for a while: the next beat may come through
                continue

    (flow.workspace / FILE).parent.mkdir(exist_ok=True)
    _say(flow, "0")
    beats = threading.Thread(target=beat, daemon=True)
    beats.start()
    try:
        yield flow
    finally:
        stop.set()
        beats.join()
        _say(flow, ENDED)


class Listener:
    """Hears one flow. FileNotFoundError where this machine does not see its workspace."""

    def __init__(self, flow: Flow):
        self._flow, self._file = flow, flow.workspace / FILE
        self._heard, self._unheard = "", 0
        if not self._file.is_file():
            raise FileNotFoundError(
                f"{socket.gethostname()} has no {self._file}: every worker must see the flow's workspace at that path "
                "(a shared file system)"
            )

    def ended(self) -> bool:
        """Whether the flow has ended. To be asked every `POLL_SECONDS`: looks are counted, so that a worker that was
        suspended does not take its own sleep for the flow's.
        """
        try:
            said = self._file.read_text()
        except OSError:
            said = self._heard
        self._unheard = self._unheard + 1 if said == self._heard else 0
        self._heard = said
        if not said or self._unheard > PATIENCE:
            return self._unheard > PATIENCE
        token, _, word = said.partition(" ")
        return token != self._flow.token or word == ENDED
