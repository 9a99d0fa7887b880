"""The stages of the graph (`dvc.yaml`) and what they are made of. Nothing here imports Hydra or `flows`.

A stage must not outlive the `dvc` that runs it, or a second `dvc repro` would train beside the orphan of the first. So
a stage asks the kernel to die with its parent, here, before its own imports, which take seconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

if "DVC_STAGE" in os.environ and sys.platform == "linux":  # DVC sets it for the commands of stages
    _parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
