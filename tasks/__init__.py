"""The stages of the graph (`dvc.yaml`) and what they are made of. Nothing here imports Hydra or `flows`.

A stage must not outlive the `dvc` that runs it, or a second `dvc repro` would train beside the orphan of the first. So
a stage asks the kernel to die with its parent, here, before its own imports, which take seconds; and so does each of
the processes that a stage starts (`tasks.launch`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# DVC sets the first for the commands of stages, a launcher the second for its processes
if {"DVC_STAGE", "LOCAL_RANK"} & os.environ.keys() and sys.platform == "linux":
    _parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
