"""A run that is asked to pause: SIGTERM, or the file `.rft/pause` (`touch .rft/pause`). It ends after the step at hand,
with a checkpoint; the same command goes on from there.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = Path(".rft/pause")
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again

_signalled = threading.Event()


class Paused(RuntimeError):
    """The run has a checkpoint and waits to be started again."""


@contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM asks for a pause instead of ending the process."""
    _signalled.clear()
    before = signal.signal(signal.SIGTERM, lambda number, frame: _signalled.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _signalled.clear()


def requested() -> bool:
    """Whether a pause is asked for. The file is taken away, so that the next start does not pause again."""
    if FILE.exists():
        FILE.unlink(missing_ok=True)
        return True
    return _signalled.is_set()
