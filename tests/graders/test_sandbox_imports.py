"""What a worker imports before it forks: listed modules alone, and a call is given all the same."""

import shutil
import subprocess
import sys

import pytest

from tasks.graders.sandbox import Failure, Limits, Sandbox, isolation
from tasks.graders.sandbox.imports import MODULES, worth_importing
from tasks.graders.sandbox.worker import Worker


@pytest.mark.parametrize(
    "source, modules",
    [
        ("import numpy as np, os", ["numpy"]),
        ("import numpy.fft", ["numpy"]),
        ("from numpy.linalg import norm", ["numpy", "numpy.linalg"]),
        ("def f():\n    try:\n        from scipy import stats\n    except ImportError: pass", ["scipy", "scipy.stats"]),
        ("from . import numpy", []),
        ("from .numpy import x", []),
        ("import torch, numpyx, subprocess, tasks.graders", []),
        ("import numpy.f2py.__main__", ["numpy"]),  # a module that is not listed is not run outside the sandbox
        ("__import__('numpy')", []),
        ("import numpy as", []),
    ],
)
def test_what_is_worth_importing_are_listed_modules_alone(source, modules):
    assert worth_importing([source, "import re"]) == modules


MATMUL = "import numpy as np\ndef f(): return float((np.ones((300, 300)) @ np.ones((300, 300)))[0, 0])"
NUMBERS = "import numpy as np\nimport numpy.random\ndef f(): return [np.random.rand(), __import__('random').random()]"


@pytest.mark.parametrize("kind", ["landlock", "bubblewrap"])
def test_modules_of_the_sources_are_there_before_they_are_imported(kind):
    if kind == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    with Sandbox(isolation=kind, workers=1, sources=[MATMUL, NUMBERS]) as sandbox:
        there = sandbox.call("import sys\ndef f(): return 'numpy.random' in sys.modules", "f").value
        assert there is (kind == "landlock")  # without /proc their memory is not known
        assert sandbox.call(MATMUL, "f").value == 300
        first, second = (sandbox.call(NUMBERS, "f").value for _ in range(2))
        assert first[0] != second[0] and first[1] != second[1]


def test_they_leave_each_call_its_memory_and_no_more():
    of_program = "def f(): return len(bytearray(70 << 20))"
    with Sandbox(Limits(memory_mb=128), "landlock", 1, [MATMUL]) as sandbox:
        assert sandbox.call(of_program, "f").value == 70 << 20  # numpy alone takes some 80 MB
        assert sandbox.call(of_program.replace("70", "128"), "f").failure == Failure.MEMORY


def test_a_module_that_cannot_be_imported_is_told_of_by_the_program_alone():
    made = Worker(isolation.choose("auto"), Limits(), ["no_such_module", "this.neither"])
    ran = made.call("import no_such_module", "f")
    made.close()
    assert ran.failure == Failure.EXCEPTION and "No module named 'no_such_module'" in ran.error


@pytest.mark.slow
def test_no_listed_module_starts_a_thread():
    source = (
        "import contextlib, importlib, os, sys\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(ImportError): importlib.import_module(name)\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    command = [sys.executable, "-c", source, *MODULES.split()]
    assert subprocess.check_output(command, env=isolation.ENVIRONMENT, text=True).strip() == "1"
