"""One stage as several processes: the stage starts itself `launch.num_processes` times.

`launch=ddp launch.num_processes=8` (conf/launch) is all that a user says: commands, `dvc repro` and the flow stay as
they are. Where a process ends badly the others are killed at once (torchrun would wait 30 s for each, which listens for
a pause), and what it said last is shown; the same command goes on from the checkpoint. SIGTERM goes to every process,
so that a run pauses as one. On several machines, start the stage by `torchrun`, with `launch.num_processes` the
processes of all machines together.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import distributed

from tasks.schema.launch import Launch

NUM_TAIL_LINES = 30
POLL_SECONDS = 0.2


class LaunchError(RuntimeError):
    """Processes that cannot be started as asked; the message names the key and the way out."""


@contextmanager
def joined(launch: Launch, module: str) -> Iterator[None]:
    """Inside, this is one of the processes of the stage `module` ('tasks.sft'). The process that a user or DVC started
    becomes their parent here, and ends with their exit code.
    """
    check(launch)
    if "RANK" not in os.environ and launch.num_processes > 1:
        sys.exit(_run(launch, module))
    there = int(os.environ.get("WORLD_SIZE", 1))
    if there != launch.num_processes:
        raise LaunchError(
            f"launch.num_processes is {launch.num_processes}, but WORLD_SIZE says that {there} were started: make both "
            "the same"
        )
    if launch.num_processes == 1:
        yield
        return
    _join()
    with _ending():
        yield


def check(launch: Launch) -> None:
    """`LaunchError` for a backend that cannot run."""
    if launch.backend.startswith("zero") and not find_spec("deepspeed"):
        raise LaunchError(
            f"launch.backend {launch.backend}: DeepSpeed is not installed: pip install -e '.[deepspeed]' "
            "(docs/processes.md), or take fsdp, which shards RFT by PyTorch itself"
        )


def _join() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # counts and texts go over gloo, gradients on a GPU over nccl
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


@contextmanager
def _ending() -> Iterator[None]:
    """An end or a pause takes leave of the group; an error ends the process as it stands."""
    try:
        yield
    except SystemExit:
        distributed.destroy_process_group()  # a thread of gloo that outlives the interpreter aborts the process
        raise
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # the interpreter's own end would wait for sums that the others never come to
    distributed.destroy_process_group()


def _start(launch: Launch, module: str, rank: int, port: int, said: Path) -> subprocess.Popen:
    """Process `rank`. Only process 0 is heard, for the others say the same: it goes to the file `said`."""
    num = launch.num_processes
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    if "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = max(1, len(os.sched_getaffinity(0)) // num)
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    if rank == 0:
        return subprocess.Popen(command, env=environment)
    with said.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def _run(launch: Launch, module: str) -> int:
    """Start the processes and see them through; the exit code of the first that failed, or 0."""
    gpus, num = torch.cuda.device_count(), launch.num_processes
    if 0 < gpus < num:
        raise LaunchError(f"launch.num_processes {num}: there are {gpus} GPUs, and each process needs its own")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # where they find each other
    with tempfile.TemporaryDirectory(prefix="rft-") as folder:
        said = [Path(folder) / f"{rank}.log" for rank in range(num)]
        running = [_start(launch, module, rank, store.port, said[rank]) for rank in range(num)]
        signal.signal(signal.SIGTERM, lambda number, frame: [process.send_signal(number) for process in running])
        try:
            rank, code = _first_to_fail(running)
        finally:
            for process in running:
                process.kill()
                process.wait()
        if code not in (0, os.EX_TEMPFAIL):  # paused: process 0 has said so
            print(_told(rank, code, num, said[rank]), file=sys.stderr)
    return code if code >= 0 else 128 - code


def _first_to_fail(running: Sequence[subprocess.Popen]) -> tuple[int, int]:
    """(rank, exit code), once a process has failed or all have ended; those that pause do so together."""
    while None in (codes := [process.poll() for process in running]):
        for rank, code in enumerate(codes):
            if code not in (None, 0, os.EX_TEMPFAIL):
                return rank, code
        time.sleep(POLL_SECONDS)
    return max(enumerate(codes), key=lambda ended: ended[1] != 0)


def _told(rank: int, code: int, num: int, log: Path) -> str:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    head = f"process {rank} of {num} failed ({how}), the others were stopped; the same command goes on"
    return "\n".join([f"{head}. The end of what it said:" if said else head, *said[-NUM_TAIL_LINES:]])
