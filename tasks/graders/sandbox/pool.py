"""The sandbox that graders use: a few warm workers, shared by threads."""

import os
import queue
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from tasks.graders.sandbox.imports import worth_importing
from tasks.graders.sandbox.isolation import choose
from tasks.graders.sandbox.records import Failure, Limits, Ran, SandboxError
from tasks.graders.sandbox.worker import Worker

WORKERS = min(8, os.cpu_count() or 1)  # for many calls: at some 5 ms each, more would wait for the parent
_isolations: set[str] = set()


def isolations() -> list[str]:
    """The isolation of each sandbox that this process has started, for the record of its run."""
    return sorted(_isolations)


class Sandbox:
    """Runs programs, each in a process of its own that is locked in before the source runs.

    `isolation`: 'landlock', 'bubblewrap', or 'auto' for the first of them that there is; the attribute of that name
    says what is in force. SandboxError where it is not available or a probe gets out: a program is never run without.
    A worker that has ended is replaced before the next call, so that only the call which it broke in is an error.
    `sources` are programs that will be called: what they import of known packages is imported once a worker.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        isolation: str = "auto",
        workers: int = 2,
        sources: Iterable[str] = (),
    ):
        if workers < 1:
            raise ValueError(f"workers is {workers}: at least 1")
        self.limits = limits or Limits()
        self._chosen = choose(isolation)
        self._modules = worth_importing(sources)
        self.isolation = self._chosen.name
        self._workers: list[Worker] = []
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        try:
            with ThreadPoolExecutor(workers) as threads:  # each may have to import much
                for worker in threads.map(lambda _: self._start(), range(workers)):
                    self._idle.put(worker)
        except BaseException:
            self.close()
            raise
        _isolations.add(self.isolation)

    def call(self, source: str, name: str, *arguments: object) -> Ran:
        """Run the source, then `name(*arguments)`. Arguments and result pass as JSON.

        Whatever the program does is a Ran; TypeError for arguments that are not JSON, SandboxError where the sandbox
        broke. From any thread; waits for an idle worker.
        """
        if not self._workers:
            raise SandboxError("this sandbox is closed")
        size = len(source.encode(errors="surrogatepass"))
        if size > self.limits.source_bytes:
            too_large = f"the source has {size} bytes; {self.limits.source_bytes} are allowed"
            return Ran(failure=Failure.SOURCE_TOO_LARGE, error=too_large)
        worker = self._idle.get()
        try:
            if worker.ended:
                worker = self._replaced(worker)
            return worker.call(source, name, *arguments)
        finally:
            self._idle.put(worker)

    def map(self, calls: Iterable[tuple[str, str, Sequence]]) -> list[Ran | SandboxError]:
        """`call(source, name, *arguments)` for each (source, name, arguments), over all workers, in the order given; a
        SandboxError in the place of each call that it kept from running.
        """

        def attempt(call: tuple[str, str, Sequence]) -> Ran | SandboxError:
            try:
                return self.call(call[0], call[1], *call[2])
            except SandboxError as error:
                return error

        with ThreadPoolExecutor(len(self._workers) or 1) as threads:
            return list(threads.map(attempt, calls))

    def _start(self) -> Worker:
        worker = Worker(self._chosen, self.limits, self._modules)
        self._workers.append(worker)
        return worker

    def _replaced(self, ended: Worker) -> Worker:
        """A new worker in its place; SandboxError where none can be started, and the next call tries again."""
        worker = Worker(self._chosen, self.limits, self._modules)
        self._workers[self._workers.index(ended)] = worker
        ended.close()
        return worker

    def close(self) -> None:
        while self._workers:
            self._workers.pop().close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
