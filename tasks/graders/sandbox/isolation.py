"""What keeps a program's hands off this machine's files, how a worker is started with it, and whether it holds."""

import base64
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.graders.sandbox import seccomp
from tasks.graders.sandbox.records import Limits, SandboxError

ZYGOTE, DISK = (Path(__file__).with_name(name) for name in ("zygote.py", "disk.py"))
# Nothing of the parent's. String hashes, so the order of sets, are the same in each worker; libraries start no threads.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENVIRONMENT |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # pyarrow's, which pandas imports where it is
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LIBRARIES = ("/lib", "/lib64")  # links into /usr on most systems
MOUNTED_SCRATCH = "/scratch"

LANDLOCK_CREATE_RULESET, LANDLOCK_CREATE_RULESET_VERSION = 444, 1
READ, READ_FILES = 0b1100, 0b100  # LANDLOCK_ACCESS_FS_READ_FILE and READ_DIR
EXECUTE, MAKE_SPECIAL, IOCTL_DEV = 1 << 0, 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11, 1 << 15
NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version; the fifth has 16

# What does not raise was reached. The rest of what a program may try: tests/graders/sandbox_attacks.py.
PROBE = """
import os, resource, socket

def reached(outside):
    attempts = {
        "a file of the system": lambda: open("/etc/passwd").close(),
        "a file of the user": lambda: open(outside).close(),
        "a folder outside": lambda: os.mkdir(os.path.dirname(outside) + "/reached-by-the-sandbox"),
        "a socket": socket.socket,
        "another process": lambda: os.kill(os.getppid(), 0),
        "a new process": lambda: os.fork() or os._exit(0),
        "another program": lambda: os.execv("/bin/true", ["true"]),
        "its limits": lambda: resource.setrlimit(resource.RLIMIT_CPU, (5, 5)),
        "file modes": lambda: os.chmod(".", 0o700),
    }
    found = [] if resource.getrlimit(resource.RLIMIT_AS)[0] > 0 else ["memory without limit"]
    for name, attempt in attempts.items():
        try:
            attempt()
            found.append(name)
        except (OSError, ValueError):  # the latter is what setrlimit makes of EPERM
            pass
    return found
"""


@dataclass(frozen=True)
class Isolation:
    """A way to start workers. `name` is what a run records."""

    kind: str
    landlock: dict[str, int] | None = None  # sets of rights by what they are for
    bwrap: str | None = None  # path of the program

    @property
    def name(self) -> str:
        return f"{self.kind}+seccomp+rlimits"

    def policy(self, limits: Limits, scratch: str, modules: Sequence[str]) -> dict:
        """What the zygote is told: plain data, so that it needs nothing of this project."""
        return {
            "modules": [] if self.bwrap else modules,  # without /proc, nobody knows what memory they take
            "landlock": self.landlock,
            "readable": [*readable(), *DEVICES],
            "filter": base64.b64encode(seccomp.program()).decode(),
            "scratch": MOUNTED_SCRATCH if self.bwrap else scratch,
            "counts_writes": not self.bwrap,  # bubblewrap's scratch is a tmpfs of that size, and it has no /proc
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_mb << 20,
            "scratch_bytes": limits.scratch_mb << 20,
            "output_bytes": limits.output_bytes,
        }

    def command(self, limits: Limits) -> list[str]:
        """How a worker is started; ENVIRONMENT is all that it is to be given."""
        zygote = [sys.executable, "-P", "-s", "-B", str(ZYGOTE)]
        if not self.bwrap:
            return zygote
        mounts = [word for path in [*readable(), str(ZYGOTE), str(DISK)] for word in bind(path)]
        devices = [word for path in DEVICES for word in ("--dev-bind", path, path)]
        scratch = ["--size", str(limits.scratch_mb << 20), "--tmpfs", MOUNTED_SCRATCH, "--remount-ro", "/"]
        return [self.bwrap, "--unshare-all", "--cap-drop", "ALL", *mounts, *devices, *scratch, *zygote]


def choose(asked: str) -> Isolation:
    """The isolation asked for, or with 'auto' the first there is; SandboxError where there is none, naming the fix."""
    if asked not in ("auto", "landlock", "bubblewrap"):
        raise SandboxError(f"isolation {asked!r}: give auto, landlock or bubblewrap")
    version, bwrap = landlock_version(), shutil.which("bwrap")
    if asked != "bubblewrap" and version:
        return Isolation("landlock", landlock=landlock_rights(version))
    if asked != "landlock" and bwrap:
        return Isolation("bubblewrap", bwrap=bwrap)
    raise SandboxError(
        f"isolation {asked!r} is not available: Landlock needs Linux 5.13 or later with `landlock` among its security "
        "modules (/sys/kernel/security/lsm), bubblewrap the program bwrap on the PATH; nothing is run without one"
    )


def landlock_version() -> int:
    """The version of Landlock's interface in this kernel; 0 where there is none."""
    libc = ctypes.CDLL(None)
    return max(0, libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION))


def landlock_rights(version: int) -> dict[str, int]:
    """Sets of LANDLOCK_ACCESS_FS_*: all of this version, reading, what a scratch allows, what a file can have."""
    handled = (1 << NUM_RIGHTS.get(version, 16)) - 1
    scratch = handled & ~(EXECUTE | MAKE_SPECIAL | IOCTL_DEV)
    return {"handled": handled, "read": READ, "scratch": scratch, "file": READ_FILES}


def readable() -> list[str]:
    """The interpreter and its libraries: nothing of the user's. SandboxError where they lie above what is."""
    prefixes = {sys.prefix, sys.base_prefix}
    for path in {os.path.realpath(prefix) for prefix in prefixes} - {"/usr"}:
        if any(Path(own).is_relative_to(path) for own in (os.path.expanduser("~"), tempfile.gettempdir())):
            raise SandboxError(f"Python lies in {path}, which holds more than Python: use one in a folder of its own")
    shown = {*prefixes, "/usr", *LIBRARIES, "/etc/ld.so.cache"}
    return sorted(path for path in shown if Path(path).exists())


def bind(path: str) -> list[str]:
    """bubblewrap's words to show a path at its own place, read-only; a link stays one."""
    if path in LIBRARIES and Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind", path, path]
