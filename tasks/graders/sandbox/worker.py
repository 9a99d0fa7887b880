"""A worker from outside: one zygote, started with an isolation, which answers one call at a time."""

import contextlib
import json
import math
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence

from tasks.graders.sandbox.isolation import ENVIRONMENT, PROBE, Isolation
from tasks.graders.sandbox.records import MAX_DEPTH, MAX_ERROR, Failure, Limits, Ran, SandboxError

GRACE = 60.0  # seconds beyond its limit after which a worker that has not answered is broken
LEAVING = 5.0  # seconds to end by itself


class Worker:
    """SandboxError where it cannot be started, a probe gets out of it, or it breaks: it has `ended` then, for good."""

    def __init__(self, isolation: Isolation, limits: Limits, modules: Sequence[str] = ()):
        self.limits = limits
        self.scratch = tempfile.mkdtemp(prefix="kshot-sandbox-")
        self.process = subprocess.Popen(
            isolation.command(limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,  # no terminal to type into, no Ctrl-C; and one group to kill
        )
        self._answers = select.poll()
        self._answers.register(self.process.stdout, select.POLLIN)
        try:
            self._send(json.dumps(isolation.policy(limits, self.scratch, modules)).encode())
            with tempfile.NamedTemporaryFile() as outside:
                ran = self.call(PROBE, "reached", outside.name)
            if ran.failure:
                raise SandboxError(f"{isolation.name} could not be probed: {ran.failure}, {ran.error}")
            if ran.value:
                raise SandboxError(f"{isolation.name} does not hold here: a program reached {ran.value}")
        except BaseException:
            self.close()
            raise

    def call(self, source: str, name: str, *arguments: object) -> Ran:
        """What `name(*arguments)` returns once the source ran; TypeError for arguments that are not JSON."""
        request = json.dumps([source, name, arguments]).encode()
        try:
            self._send(request)
            if not self._answers.poll((self.limits.seconds + GRACE) * 1000):
                raise SandboxError(f"a worker has not answered for {self.limits.seconds + GRACE:.0f} s")
            failure, error, seconds = json.loads(self._receive())
            said = self._receive()
        except BaseException:
            self._kill()  # what it still answers would be taken for the next call's
            raise
        if failure is None:
            failure, value = read(said)
            error = "" if failure is None else str(value)
        if failure is not None:
            return Ran(failure=Failure(failure), error=short(error), seconds=seconds)
        return Ran(value, seconds=seconds)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """End the zygote and remove its folder."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self._kill()
        self.process.stdout.close()
        self.process.stderr.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _send(self, data: bytes) -> None:
        try:
            self.process.stdin.write(struct.pack(">I", len(data)) + data)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._broken() from None

    def _receive(self) -> bytes:
        size = self.process.stdout.read(4)
        data = self.process.stdout.read(struct.unpack(">I", size)[0]) if len(size) == 4 else b""
        if len(size) < 4 or len(data) < struct.unpack(">I", size)[0]:
            raise self._broken()
        return data

    def _broken(self) -> SandboxError:
        self._kill()
        said = self.process.stderr.read().decode(errors="replace").strip()
        return SandboxError(f"a worker ended with {self.process.returncode}: {said[-1000:] or 'no word'}")


def read(said: bytes) -> tuple[str | None, object]:
    """(failure, value or error) of what a program wrote: by its own account, so anything is expected."""
    try:
        failure, value = json.loads(said)
        if failure is None:
            require_plain(value)
            return None, value
        return Failure(failure), str(value)
    except (ValueError, TypeError, RecursionError) as error:
        return Failure.BAD_RESULT, f"{type(error).__name__}: {error}"


def require_plain(value: object) -> None:
    """ValueError for a value that later code could choke on: too deep, infinite, or text that is no Unicode."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"{item} is not finite")
            for text in [item] if isinstance(item, str) else item if isinstance(item, dict) else []:
                text.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
        inner = [item for item in level if isinstance(item, list | dict)]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]


def short(error: str) -> str:
    """The start of it, safe to print and to write."""
    return error[:MAX_ERROR].encode(errors="backslashreplace").decode()[:MAX_ERROR]
