"""Who may use what, where stages run beside each other: one worker a stage, one stage a GPU.

A lock is a `flock` on an open file that the stage's supervisor inherits. It is free when the last holder of that file
has ended: however a worker dies, kill -9 included, nobody else gets its stage or its GPUs before the supervisor has
stopped the stage's processes. Stages are locked in the workspace, whose file system must carry locks from machine to
machine (NFSv4, GPFS, CephFS, Lustre mounted with `flock`); GPUs in a folder of each machine, for all runs of a user.
"""

import fcntl
import json
import os
import re
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from dvc.lock import make_lock


class Lock:
    """The file `path`, which one holder has at a time."""

    def __init__(self, path: Path):
        self.path = path
        self.files: list[int] = []  # descriptors to hand to what shall hold it too

    def take(self) -> bool:
        """Whether it is held now, without waiting."""
        if not self.files:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            self.files.append(file)
        return True

    def release(self) -> None:
        """Hold it no more. Whoever inherited the file still does."""
        while self.files:
            os.close(self.files.pop())


def _ask_driver() -> dict[str, str]:
    """Index -> UUID of the machine's GPUs, as NVIDIA's driver counts them; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(re.findall(r"^(\d+), (\S+)$", said, re.MULTILINE))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES where it is set (SLURM sets it), else all.

    By UUID where the driver tells, since every SLURM job may count its own GPUs from 0.
    """
    uuids = _ask_driver()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return list(uuids.values())
    names = [name.strip() for name in allowed.split(",")]
    valid = names[: next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]  # as CUDA reads it
    return [uuids.get(name, name) for name in valid]


class Gpus:
    """`num` GPUs of this machine for one stage; none are taken where it has none at all. ValueError: it has too few."""

    def __init__(self, num: int):
        names = visible_gpus()
        if names and num > len(names):
            raise ValueError(
                f"{num} GPUs are asked for (dvc.yaml: meta: gpus), and {socket.gethostname()} has {len(names)}: "
                f"{', '.join(names)}"
            )
        folder = Path(tempfile.gettempdir()) / f"kshot-gpus-{os.getuid()}"
        self._num = num if names else 0
        self._turn = Lock(folder / "turn")
        self._locks = {name: Lock(folder / quote(name, safe="")) for name in names}

    @property
    def files(self) -> list[int]:
        return [file for lock in self._locks.values() for file in lock.files]

    @property
    def names(self) -> list[str]:
        return [name for name, lock in self._locks.items() if lock.files]

    def take(self) -> bool:
        """Whether all are held now. Those that are free are kept until then, by one stage at a time: so two that want
        several neither wait for each other nor are overtaken for ever by those that want one.
        """
        if len(self.files) < self._num and self._turn.take():
            for lock in self._locks.values():
                if len(self.files) < self._num:
                    lock.take()
        if len(self.files) < self._num:
            return False
        self._turn.release()
        return True

    def release(self) -> None:
        for lock in (self._turn, *self._locks.values()):
            lock.release()


def forget_dead(dvc_tmp: Path, command: str) -> None:
    """Take out of DVC's table of readers and writers what killed runs of `command` left, which must not run now.

    DVC does so itself where no process has the dead one's number. Another machine or container may have it, and then
    the stage would be refused. A table that was torn by a kill while DVC wrote it goes as a whole.
    """
    table = dvc_tmp / "rwlock"
    with make_lock(str(dvc_tmp / "rwlock.lock"), wait=True):
        try:
            held = json.loads(table.read_text(encoding="utf-8") or "{}")
        except FileNotFoundError:
            return
        except json.JSONDecodeError:
            table.unlink()
            return
        dead = lambda info: info.get("cmd", "").endswith(command)  # noqa: E731
        held["write"] = {path: info for path, info in held.get("write", {}).items() if not dead(info)}
        readers = {path: [info for info in all if not dead(info)] for path, all in held.get("read", {}).items()}
        held["read"] = {path: infos for path, infos in readers.items() if infos}
        table.write_text(json.dumps(held), encoding="utf-8")
