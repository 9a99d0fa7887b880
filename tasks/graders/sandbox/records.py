"""What a program may use, and what became of it."""

from dataclasses import asdict, dataclass
from enum import StrEnum

MAX_DEPTH = 64  # lists and objects inside each other in a result: deeper ones break who reads them
MAX_ERROR = 200  # characters


class SandboxError(RuntimeError):
    """The sandbox itself is missing, does not hold, or broke: never the program's doing."""


class Failure(StrEnum):
    """Why a program has no value."""

    EXCEPTION = "exception"  # it raised, does not compile, or was refused a file, socket, process or thread
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"  # printed, or returned, more than output_bytes
    DISK = "disk"  # wrote more than scratch_mb
    KILLED = "killed"  # by a signal: a crash, the kernel out of memory, or ours once it had closed its result
    NO_RESULT = "no_result"  # ended before it returned, as os._exit(0) does
    NO_FUNCTION = "no_function"
    BAD_RESULT = "bad_result"  # not JSON, not finite, nested deeper than MAX_DEPTH, or not what the function returned
    SOURCE_TOO_LARGE = "source_too_large"


@dataclass(frozen=True)
class Limits:
    """What one call may use; the defaults are those of OpenAI's python grader. ValueError for one that is not above 0.

    `output_bytes` bounds what is printed and, apart from that, the result as JSON. `scratch_mb` counts every byte
    written during the call. Memory is the address space of the one process that a call is.
    """

    seconds: float = 120.0
    memory_mb: int = 2048
    source_bytes: int = 256 * 1024
    output_bytes: int = 1024 * 1024
    scratch_mb: int = 1024

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"limit {name} is {value!r}: it must be above 0")


@dataclass(frozen=True)
class Ran:
    """One call: a JSON `value`, or a `failure` with a short text; wall-clock `seconds` inside the sandbox."""

    value: object = None
    failure: Failure | None = None
    error: str = ""
    seconds: float = 0.0
