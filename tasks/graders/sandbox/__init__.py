"""Programs that a user or a model wrote, run where they can reach nothing. See docs/sandbox.md.

    with Sandbox() as sandbox:
        ran = sandbox.call("def grade(sample, item): return 1.0", "grade", sample, item)

`pool` hands calls to workers; `worker` starts one and talks to it; `zygote` is what runs in it, and `disk` what that
needs for the files of a call; `imports` is what it loads once; `seccomp` makes its filter of system calls; `isolation`
chooses what separates it from the machine, and tries to get out.
"""

from tasks.graders.sandbox.pool import WORKERS, Sandbox, isolations
from tasks.graders.sandbox.records import Failure, Limits, Ran, SandboxError

__all__ = ["WORKERS", "Failure", "Limits", "Ran", "Sandbox", "SandboxError", "isolations"]
