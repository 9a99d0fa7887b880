"""One stage as several processes: the stage starts itself `launch.num_processes` times, over PyTorch's elastic agent.

`launch=ddp launch.num_processes=8` (conf/launch) is all that a user says: commands, `dvc repro` and the flow stay as
they are. Where a process ends badly the others are stopped at once, and what it said last is shown; the same command
goes on from the checkpoint. SIGTERM goes to every process, so that a run pauses as one. On several machines, start the
stage by `torchrun`, with `launch.num_processes` the processes of all machines together.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, Std, start_processes
from torch.distributed.elastic.multiprocessing.api import SignalException

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
    yield
    distributed.destroy_process_group()


def check(launch: Launch) -> None:
    """`LaunchError` for a backend that cannot run."""
    if launch.backend.startswith("zero"):
        missing = "" if find_spec("deepspeed") else ", and it is not installed"
        raise LaunchError(
            f"launch.backend {launch.backend}: DeepSpeed has never been run with this project{missing}; take fsdp, "
            "which shards the same by PyTorch itself"
        )


def _join() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # counts and texts go over gloo, gradients on a GPU over nccl
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def _environment(launch: Launch, rank: int, port: int) -> dict[str, str]:
    num = launch.num_processes
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    if "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = max(1, len(os.sched_getaffinity(0)) // num)
    return {name: str(value) for name, value in variables.items()}


def _run(launch: Launch, module: str) -> int:
    """Start the processes and see them through; the exit code of the first that failed, or 0. Only process 0 is heard:
    the others say the same.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < launch.num_processes:
        raise LaunchError(f"launch.num_processes {launch.num_processes}: there are {gpus} GPUs, and each needs its own")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # where they find each other
    ranks = range(launch.num_processes)
    with tempfile.TemporaryDirectory(prefix="rft-") as logs:
        processes = start_processes(
            module,
            sys.executable,
            {rank: ("-m", module, *sys.argv[1:]) for rank in ranks},
            {rank: _environment(launch, rank, store.port) for rank in ranks},
            DefaultLogsSpecs(log_dir=logs, redirects={rank: Std.ALL for rank in ranks[1:]}),
        )
        signal.signal(signal.SIGTERM, lambda number, frame: _forward(processes, number))
        try:
            failures = processes.wait(period=POLL_SECONDS).failures
        except SignalException as error:  # Ctrl-C: processes of their own session do not get it
            processes.close()
            return 128 + error.sigval
        if not failures:
            return 0
        first = min(failures.values(), key=lambda failure: failure.timestamp)
        if first.exitcode != os.EX_TEMPFAIL:  # paused: process 0 has said so
            print(_told(first.local_rank, first.exitcode, launch.num_processes, Path(logs)), file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode


def _forward(processes: PContext, number: int) -> None:
    for pid in processes.pids().values():
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _told(rank: int, code: int, num: int, logs: Path) -> str:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = [line for file in logs.rglob(f"{rank}/stderr.log") for line in file.read_text(errors="replace").splitlines()]
    head = f"process {rank} of {num} failed ({how}), the others were stopped; the same command goes on"
    return "\n".join([f"{head}. The end of what it said:" if said else head, *said[-NUM_TAIL_LINES:]])
