"""What a grader sees of the sandbox: values, kinds of failure, and a refusal to run without isolation."""

import ctypes
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tasks.graders.sandbox import Failure, Limits, Ran, Sandbox, SandboxError, isolation, seccomp, worker
from tasks.graders.sandbox.isolation import Isolation
from tasks.graders.sandbox.worker import Worker

GRADER = "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])"
ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # libseccomp's SCMP_ARCH_*, which are the kernel's


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(seconds=30, memory_mb=512, source_bytes=10_000)) as sandbox:
        yield sandbox


@pytest.mark.parametrize("text, score", [("42", 1.0), ("", 0.0), ("<answer>42</answer> 42 42", 0.0)])
def test_a_grader_returns_its_score(sandbox, text, score):
    ran = sandbox.call(GRADER, "grade", {"output_text": text}, {"answer": "42"})
    assert (ran.value, ran.failure, ran.error) == (score, None, "")
    assert 0 < ran.seconds < 30


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**80), 0.1, 1e-300, "", "naïve \u2028 \U0001f600", [], {}, [[1, "a"], {"b": [None]}], {"": 0}],
)
def test_json_values_pass_there_and_back(sandbox, value):
    ran = sandbox.call("def same(x): return x", "same", value)
    assert ran.failure is None
    assert ran.value == value and type(ran.value) is type(value)


def test_a_program_without_arguments(sandbox):
    source = "def solution():\n    eggs, eaten = 16, 3 + 4\n    return (eggs - eaten) * 2"
    assert sandbox.call(source, "solution").value == 18


def test_what_honest_programs_use(sandbox):
    source = """
from __future__ import annotations
import collections, csv, dataclasses, decimal, io, os, pickle, re, signal, tempfile, unicodedata

@dataclasses.dataclass
class Point:
    x: int

def f():
    signal.alarm(0)
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + '/x', 'wb') as file:
            pickle.dump(Point(3), file)
        os.rename(folder + '/x', folder + '/y')
        with open(folder + '/y', 'rb') as file:
            point = pickle.load(file)
    print('a note')
    rows = list(csv.reader(io.StringIO('1,2')))
    return [point.x, rows, str(decimal.Decimal(1) / 8), collections.Counter('aab')['a'], bool(re.match('a+', 'aa'))]
"""
    ran = sandbox.call(source, "f")
    assert ran.value == [3, [["1", "2"]], "0.125", 2, True], ran


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_honest_files_and_mappings_of_a_long_call_are_within_the_limit(monkeypatch, folder):
    if not os.path.isdir(folder):
        pytest.skip(f"there is no {folder}")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    source = """
import mmap, os, tempfile, time
def f():
    os.makedirs('a/b')
    with open('a/b/x', 'wb+') as named, tempfile.TemporaryFile() as unnamed:
        pages = []
        for file in (named, unnamed):
            file.write(bytes(1 << 20))
            file.flush()
            pages.append(mmap.mmap(file.fileno(), 0))
            pages[-1][:] = b'x' * (1 << 20)
        time.sleep(0.3)  # several looks
        return [pages[0][:1] == pages[1][-1:], os.path.getsize('a/b/x')]
"""
    with Sandbox(Limits(seconds=30, memory_mb=256, scratch_mb=8), workers=1) as sandbox:
        ran = sandbox.call(source, "f")
    assert ran.value == [True, 1 << 20], ran


def test_many_files_without_a_byte_are_beyond_the_limit_on_a_tmpfs(monkeypatch):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    source = "import time\ndef f():\n    for n in range(400): open(str(n), 'w').close()\n    time.sleep(30)"
    with Sandbox(Limits(seconds=5, scratch_mb=1), isolation="landlock", workers=1) as sandbox:
        assert sandbox.call(source, "f").failure == Failure.DISK


def test_installed_packages_can_be_imported(sandbox):
    ran = sandbox.call("import numpy\ndef f(): return float(numpy.linalg.norm(numpy.ones(4)))", "f")
    assert ran.value == 2.0, ran


@pytest.mark.parametrize(
    "result, value",
    [
        ("numpy.float32(0.5)", 0.5),
        ("numpy.float64(0.25)", 0.25),
        ("numpy.int64(2**53 + 1)", 2**53 + 1),
        ("numpy.bool_(True)", True),
        ("numpy.array(0.5)", 0.5),
        ("numpy.mean([1, 0], dtype='float32')", 0.5),
        ("Fraction(1, 4)", 0.25),
        ("Decimal('0.1')", 0.1),
        ("[numpy.int8(1), {'a': Decimal(2)}]", [1, {"a": 2.0}]),
    ],
)
def test_numbers_that_json_does_not_know_are_numbers(sandbox, result, value):
    source = f"import numpy\nfrom decimal import Decimal\nfrom fractions import Fraction\ndef f(): return {result}"
    ran = sandbox.call(source, "f")
    assert ran.value == value and type(ran.value) is type(value), ran


@pytest.mark.parametrize(
    "result",
    ["numpy.float32('nan')", "numpy.array([1.0, 2.0])", "numpy.complex64(1)", "b'1'", "Decimal('inf')", "float"],
)
def test_what_is_no_number_is_not_made_one(sandbox, result):
    ran = sandbox.call(f"import numpy\nfrom decimal import Decimal\ndef f(): return {result}", "f")
    assert (ran.value, ran.failure) == (None, Failure.BAD_RESULT), ran


@pytest.mark.parametrize(
    "source, kind, word",
    [
        ("def other(): pass", Failure.NO_FUNCTION, "'f'"),
        ("f = 3", Failure.NO_FUNCTION, "'f'"),
        ("", Failure.NO_FUNCTION, "'f'"),
        ("def f(:", Failure.EXCEPTION, "SyntaxError"),
        ("def f(): return 1 / 0", Failure.EXCEPTION, "ZeroDivisionError: division by zero"),
        ("def f(x): return x", Failure.EXCEPTION, "TypeError"),
        ("def f(): raise ValueError('first line\\nlast line')", Failure.EXCEPTION, "ValueError: last line"),
        ("def f(): raise SystemExit('1.0')", Failure.EXCEPTION, "SystemExit"),
        ("async def f(): return 1.0", Failure.BAD_RESULT, "coroutine"),
        ("def f(): return {1.0}", Failure.BAD_RESULT, "set"),
        ("\ud800 = 1", Failure.EXCEPTION, "UnicodeEncodeError"),
        ("#" * 10_001, Failure.SOURCE_TOO_LARGE, "10001"),
    ],
)
def test_a_program_at_fault_is_data_with_its_kind(sandbox, source, kind, word):
    ran = sandbox.call(source, "f")
    assert (ran.value, ran.failure) == (None, kind)
    assert word in ran.error and "\n" not in ran.error


def test_what_a_program_says_of_itself_is_read_with_suspicion():
    """What could be written by a program that found its token."""
    for said in (b"", b"1", b"[]", b"[null]", b"[null,1,2]", b'["no such kind",1]', b"[null,NaN]", b"[null,1e999]"):
        assert worker.read(said)[0] == Failure.BAD_RESULT, said
    for said in (b"\xff", b"[" * 10**5, b'[null,"\\ud800"]', b"[null," + b"[" * 65 + b"]" * 65 + b"]", b"[[],1]"):
        assert worker.read(said)[0] == Failure.BAD_RESULT, said[:20]
    assert worker.read(b"[null," + b"[" * 60 + b"]" * 60 + b"]")[0] is None


def test_arguments_that_are_not_json_are_the_callers_mistake():
    with Sandbox(workers=1) as sandbox:
        with pytest.raises(TypeError, match="not JSON serializable"):
            sandbox.call("def f(x): return 1", "f", object())
        assert sandbox.call("def f(x): return 1", "f", 0).value == 1  # nothing was sent, so nothing is lost


def test_a_map_answers_in_order_and_threads_get_their_own_answers(sandbox):
    square = "def square(x):\n    import time\n    time.sleep(0.02 * (x % 3))\n    return x * x"
    assert [ran.value for ran in sandbox.map([(square, "square", (i,)) for i in range(12)])] == [
        i * i for i in range(12)
    ]
    assert sandbox.map([]) == []
    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(lambda i: sandbox.call(square, "square", i).value, range(24)))
    assert values == [i * i for i in range(24)]


def test_a_large_item_passes(sandbox):
    text = "x" * 3_000_000  # more than a pipe holds
    assert sandbox.call("def f(x): return len(x)", "f", text).value == len(text)


def test_the_order_of_a_set_is_the_same_in_each_worker():
    source = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f'})"
    with Sandbox(workers=1) as one, Sandbox(workers=1) as other:
        assert one.call(source, "f").value == other.call(source, "f").value


def test_the_limits_documented_for_openais_grader_are_the_defaults():
    limits = Limits()
    assert (limits.seconds, limits.memory_mb, limits.source_bytes, limits.scratch_mb) == (120, 2048, 262144, 1024)
    with pytest.raises(ValueError, match="memory_mb is 0"):
        Limits(memory_mb=0)
    with pytest.raises(ValueError, match="workers is 0"):
        Sandbox(workers=0)


def test_started_in_a_thread_that_ends_the_sandbox_goes_on():
    made = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(workers=1)))
    thread.start()
    thread.join()
    with made[0] as sandbox:
        assert sandbox.call("def f(): return 1", "f").value == 1


# It never runs a program without isolation.


def test_it_records_what_is_in_force(sandbox):
    assert sandbox.isolation in ("landlock+seccomp+rlimits", "bubblewrap+seccomp+rlimits")


def test_without_landlock_and_bubblewrap_nothing_starts(monkeypatch):
    monkeypatch.setattr(isolation, "landlock_version", lambda: 0)
    monkeypatch.setattr(isolation.shutil, "which", lambda name: None)
    for asked in ("auto", "landlock", "bubblewrap"):
        with pytest.raises(SandboxError, match=r"Landlock needs Linux 5.13"):
            Sandbox(isolation=asked)
    with pytest.raises(SandboxError, match="'none': give auto, landlock or bubblewrap"):
        Sandbox(isolation="none")


def test_without_landlock_auto_takes_bubblewrap(monkeypatch):
    monkeypatch.setattr(isolation, "landlock_version", lambda: 0)
    monkeypatch.setattr(isolation.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert isolation.choose("auto").kind == "bubblewrap"


def test_a_bubblewrap_that_does_not_work_is_an_error_with_its_words(monkeypatch, tmp_path):
    false = tmp_path / "bwrap"
    false.write_text("#!/bin/sh\necho no user namespaces here >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SandboxError, match="ended with 1: no user namespaces here"):
        Sandbox(isolation="bubblewrap")


def test_the_probe_finds_files_within_reach():
    with pytest.raises(SandboxError, match=r"does not hold here: .*'a file of the system', 'a file of the user'"):
        Worker(Isolation("landlock", landlock=None), Limits())


def test_the_probe_finds_a_filter_that_filters_nothing(monkeypatch):
    monkeypatch.setattr(seccomp, "program", lambda: struct.pack("=HBBI", seccomp.RETURN, 0, 0, seccomp.ALLOW))
    with pytest.raises(SandboxError, match=r"does not hold here: .*'a socket', 'another process', 'a new process'"):
        Sandbox(isolation="landlock")


def test_limits_that_leave_no_room_for_the_probe_are_an_error():
    # an import of the probe may be the first that finds no room, and then it is its ImportError
    with pytest.raises(SandboxError, match=r"could not be probed: (memory|exception, ImportError)"):
        Sandbox(Limits(memory_mb=1))


def test_a_program_that_cannot_be_locked_in_is_an_error_of_ours(monkeypatch):
    monkeypatch.setattr(seccomp, "program", lambda: b"\0" * 8)  # no filter that the kernel would take
    with pytest.raises(SandboxError, match=r"could not be locked in: OSError: .*Invalid argument"):
        Sandbox(isolation="landlock")


def test_a_python_above_the_users_files_is_refused(monkeypatch):
    monkeypatch.setattr(isolation.sys, "base_prefix", "/")
    with pytest.raises(SandboxError, match="Python lies in /, which holds more than Python"):
        Sandbox()


def test_a_worker_that_dies_in_a_call_is_an_error_of_that_call_alone():
    with Sandbox(workers=1) as sandbox:
        (old,) = sandbox._workers
        zygote = psutil.Process(old.process.pid)

        def kill():
            wait_until(zygote.children)
            os.killpg(zygote.pid, signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(SandboxError, match="ended with -9"):
            sandbox.call("def f():\n    while True: pass", "f")
        assert sandbox.call("def f(): return 1", "f").value == 1
        assert sandbox._workers != [old] and not os.path.exists(old.scratch)


def test_dead_workers_are_replaced_and_every_call_has_its_value():
    with Sandbox(workers=3) as sandbox:
        for dead in sandbox._workers[1:]:
            os.killpg(dead.process.pid, signal.SIGKILL)
            dead.process.wait()
        runs = sandbox.map([("def f(x): return x", "f", (n,)) for n in range(30)])
        assert [ran.value for ran in runs] == list(range(30))
        assert len(sandbox._workers) == 3


def test_where_no_worker_can_be_started_each_call_is_an_error_until_one_can(monkeypatch):
    with Sandbox(workers=1) as sandbox:
        os.killpg(sandbox._workers[0].process.pid, signal.SIGKILL)
        sandbox._workers[0].process.wait()
        with monkeypatch.context() as patched:
            patched.setattr(Isolation, "command", lambda self, limits: ["/bin/false"])
            errors = sandbox.map([("def f(): return 1", "f", ())] * 2)
            assert [str(error)[:24] for error in errors] == ["a worker ended with 1: n"] * 2
        assert sandbox.call("def f(): return 1", "f").value == 1


def test_closed_it_runs_nothing_and_leaves_nothing():
    sandbox = Sandbox(workers=2)
    workers = list(sandbox._workers)
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.call("def f(): return 1", "f")
    assert [each.process.returncode for each in workers] == [0, 0]
    assert not any(os.path.exists(each.scratch) for each in workers)


def test_a_parent_killed_in_the_middle_of_a_call_leaves_nothing(tmp_path):
    source = "from tasks.graders.sandbox import Sandbox\nx = Sandbox()\nprint(1)\nx.call('while True: pass', 'f')"
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    parent = psutil.Popen([sys.executable, "-u", "-c", source], env=environment, stdout=subprocess.PIPE)
    parent.stdout.readline()  # the probes are done
    wait_until(lambda: len(parent.children(recursive=True)) == 4)  # two zygotes, a supervisor, a program
    below = parent.children(recursive=True)
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs(below, timeout=20)[1] == []
    wait_until(lambda: not list(tmp_path.iterdir()))


def wait_until(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_interrupted_call_leaves_no_answer_for_the_next(monkeypatch):
    with Sandbox(workers=1) as sandbox:
        monkeypatch.setattr(Worker, "_receive", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sandbox.call("def f(): return 'old'", "f")
        monkeypatch.undo()
        assert sandbox.call("def f(): return 'new'", "f").value == "new"


# The filter.


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_numbers_of_system_calls_are_those_of_libseccomp(machine):
    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    column = list(ARCHITECTURES).index(machine)
    named = {**seccomp.ALLOWED, "openat": seccomp.OPENAT, "fcntl": seccomp.FCNTL, "ioctl": seccomp.IOCTL}
    named |= {"prlimit64": seccomp.PRLIMIT64, "clone3": seccomp.CLONE3, "openat2": seccomp.OPENAT2}
    for name, numbers in named.items():
        known = lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(ARCHITECTURES[machine]), name.encode())
        assert numbers[column] == (known if known >= 0 else None), name


def test_another_machine_is_refused_by_name():
    with pytest.raises(SandboxError, match="riscv64: the sandbox needs one of x86_64, aarch64"):
        seccomp.program("riscv64")


# Many.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["landlock", "bubblewrap"])
def test_two_thousand_honest_calls_all_return(kind):
    if kind == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    with Sandbox(isolation=kind) as sandbox, ThreadPoolExecutor(2) as threads:

        def timed(i: int) -> tuple[Ran, float]:
            began = time.perf_counter()
            ran = sandbox.call(GRADER, "grade", {"output_text": str(i % 2)}, {"answer": "1"})
            return ran, time.perf_counter() - began

        runs, seconds = zip(*threads.map(timed, range(2000)), strict=True)
    assert [(ran.value, ran.failure) for ran in runs] == [(float(i % 2), None) for i in range(2000)]
    crowd = max(1.0, os.getloadavg()[0] / os.cpu_count())  # how many want each core: 1 where the machine is ours
    assert statistics.median(seconds) < 0.020 * crowd
