"""Run a command that ends when its starter does, together with every process that the command started.

    python tasks/supervise.py dvc repro -s prepare

Killing only `dvc` leaves the stage's own process training on. So the command gets a process group of its own here, and
the starter holds the other end of stdin: however the starter dies, kill -9 included, stdin ends and the group is
stopped. The starter should also start this with `start_new_session=True`, so that no signal to its group ends it
first.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5  # after SIGTERM; then SIGKILL


def stop_group(group: int) -> None:
    """SIGTERM to a process group, and SIGKILL to what is left of it after `GRACE_SECONDS`."""
    try:
        os.killpg(group, signal.SIGTERM)
        for _ in range(10 * GRACE_SECONDS):
            time.sleep(0.1)
            os.killpg(group, 0)  # ProcessLookupError: all gone
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main(command: list[str]) -> int:
    """The command's exit code; 128 + the signal's number where a signal ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    stopping = threading.Event()

    def stop_at_end_of_input() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        stopping.set()
        stop_group(process.pid)

    watcher = threading.Thread(target=stop_at_end_of_input, daemon=True)
    watcher.start()
    code = process.wait()
    if stopping.is_set():
        watcher.join()  # the command itself is gone, but something it started may need the SIGKILL
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
