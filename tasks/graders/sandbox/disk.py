"""The files of a call, as its supervisor sees them: what was written, what they take, and how they are removed.

Imported by `zygote` by path, so of the stdlib alone.
"""

import math
import mmap
import os
import signal

ENTRY = 4096  # bytes that a file, folder or link counts at least
NAME_BYTES = 16


def written(pid: int) -> int:
    """Bytes that a process passed to write calls, or made dirty through a mapping: deleted files hold space unseen.

    0 once it has ended.
    """
    try:
        count = io_of(pid)
    except (PermissionError, ProcessLookupError):  # both of a process that is no more than its exit status
        return 0
    return max(count["wchar"], count["write_bytes"])


def io_of(pid: int) -> dict[str, int]:
    """The kernel's count; FileNotFoundError where it does not count."""
    with open(f"/proc/{pid}/io") as file:
        return {name: int(number) for name, number in (line.split(": ") for line in file)}


def counts_mappings(folder: str) -> bool:
    """Whether the kernel counts as written what is made dirty through a mapping of a file there: not on tmpfs, which
    may also lie below an overlay.
    """
    path = os.path.join(folder, "mapped")
    with open(path, "xb+") as file:
        os.unlink(path)
        os.posix_fallocate(file.fileno(), 0, mmap.PAGESIZE)  # a full disk is an error now, and no SIGBUS
        before = io_of(os.getpid())["write_bytes"]
        with mmap.mmap(file.fileno(), mmap.PAGESIZE) as page:
            page[0] = 1
        return io_of(os.getpid())["write_bytes"] > before


def held(pid: int, folder: str) -> float:
    """Bytes that the files in a folder take, and deleted ones that its process has open. It stands still meanwhile, so
    that nothing moves out of sight; infinite where a file is so all the same: too deep, or deleted and only mapped.
    """
    os.kill(pid, signal.SIGSTOP)
    if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code != os.CLD_STOPPED:
        return 0
    files, folders = {}, [folder]
    try:
        while folders:
            for entry in os.scandir(folders.pop()):
                files[entry.inode()] = taken(entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    folders.append(entry.path)
        opened = [os.stat(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
        files |= {file.st_ino: taken(file) for file in opened if not file.st_nlink}
        with open(f"/proc/{pid}/maps") as maps:
            mapped = {int(line.split()[4]) for line in maps if os.path.basename(folder) in line}
    except OSError:
        return math.inf
    finally:
        os.kill(pid, signal.SIGCONT)
    return math.inf if mapped - files.keys() else sum(files.values())


def taken(file: os.stat_result) -> int:
    return max(ENTRY, 512 * file.st_blocks)


def empty(folder: str) -> None:
    """Remove what a folder holds, of any depth: what lies two levels down is moved up, so that no path gets long and
    nothing recurses. Links are not followed; the process that filled it is dead."""
    unused, count = os.urandom(NAME_BYTES).hex(), 0
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                count += 1
                os.rename(inner.path, os.path.join(folder, f"{unused}{count}"))
            os.rmdir(entry.path)
