"""Several processes of one training in a test: forks that find each other over gloo."""

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import distributed


def together(num: int, work: Callable[[], Any]) -> list:
    """What `work` gives in each of `num` processes; AssertionError where one fails, whose error is on stderr."""
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        children = [_start(Path(folder), rank, num, work) for rank in range(num)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0] * num, codes
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(num)]


def _start(folder: Path, rank: int, num: int, work: Callable[[], Any]) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num}
        os.environ.update({name: str(value) for name, value in words.items()})
        AcceleratorState._reset_state(reset_partial_state=True)  # of a training before the fork
        distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=num)
        (folder / str(rank)).write_bytes(pickle.dumps(work()))
        code = 0
    except BaseException:
        traceback.print_exc()  # nobody else would tell
    finally:
        sys.stderr.flush()
        os._exit(code)
