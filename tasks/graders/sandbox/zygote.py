"""What runs in a worker: a process that forks, for each call, a supervisor and a program that locks itself in.

    zygote      reads no request, so that nothing of one call is in the memory of the next; forks a supervisor a call
    supervisor  reads the request, watches over the program, kills it, removes its folder, answers
    program     locks itself in, then runs the source

Started by path, by an interpreter with an empty environment; nothing of this project but `disk`, and beside the
stdlib only what `imports` names. On stdin and stdout pass frames, a length of four bytes before each: first the policy
(`worker.policy`), then requests [source, function, arguments]; an answer is [failure, error, seconds] and then what the
program wrote, which only a parser that expects anything may read. Nothing here asks whether the program is honest about
its own result: it could as well return a lie.
"""

import base64
import contextlib
import ctypes
import errno
import importlib
import json
import math
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from json.encoder import c_make_encoder, encode_basestring_ascii

# What graders and programs import most: paid for once a worker.
COMMON = (
    "bisect cmath collections copy dataclasses datetime decimal difflib enum fractions functools heapq itertools "
    "numbers operator random re statistics string textwrap typing unicodedata"
)
LOCKED = b"L"  # what the program says before it runs the source: nothing it runs can say otherwise later
TOKEN_BYTES = 16
MAX_ERROR = 1000  # characters; `worker` shortens it again
TICK = 0.05  # seconds between looks at what a program has written
MAX_FILES = 64  # open at once
CHUNK = 1 << 16

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF, LANDLOCK_RULE_PATH_BENEATH = 444, 445, 446, 1
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
sys.path.insert(0, os.path.dirname(__file__))
disk = importlib.import_module("disk")
del sys.path[0]


def main() -> None:
    policy = json.loads(read_frame(0))
    for name in COMMON.split():
        importlib.import_module(name)
    if policy["modules"]:
        import_for_all(policy)
    for name in [name for name in os.environ if not name.endswith("_NUM_THREADS")]:
        del os.environ[name]
    policy["looks"] = policy["counts_writes"] and not disk.counts_mappings(policy["scratch"])
    requests = select.poll()
    requests.register(0, select.POLLIN)
    try:
        while requests.poll()[0][1] & select.POLLIN:
            supervisor = os.fork()
            if not supervisor:
                end_with(lambda: supervise(policy))
            if os.waitpid(supervisor, 0)[1]:
                sys.exit("the supervisor of a call broke")
    finally:
        with contextlib.suppress(OSError):  # the parent may have removed it, and a mount stays
            os.rmdir(policy["scratch"])


def import_for_all(policy: dict) -> None:
    """Import what the programs will, and let each have the memory that this takes on top of its own. What cannot be
    imported the program hears of itself.
    """
    before = address_space()
    with contextlib.redirect_stdout(sys.stderr):  # ours is for answers
        for name in policy["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    policy["memory_bytes"] += address_space() - before
    if numpy_random := sys.modules.get("numpy.random"):  # every call has numbers of its own, as `random` does by itself
        os.register_at_fork(after_in_child=numpy_random.seed)


def address_space() -> int:
    """Bytes, as RLIMIT_AS counts them."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def end_with(work) -> None:
    """Run `work` as all that is left of this process: no caller's cleaning up runs here, whatever happens."""
    leave, code = os._exit, 1
    try:
        work()
        code = 0
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        leave(code)


def supervise(policy: dict) -> None:
    """One call, from its request to its answer."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    request = read_frame(0)
    token = os.urandom(TOKEN_BYTES)
    result, to_result = os.pipe()
    output, to_output = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        end_with(lambda: run_program(policy, to_result, to_output, request, token))
    os.close(to_result)
    os.close(to_output)
    failure, reply = watch(pid, result, output, policy)
    seconds = time.monotonic() - began
    os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    disk.empty(policy["scratch"])
    beyond = {
        "timeout": "not done after {seconds:g} s",
        "output": "more than {output_bytes} bytes of output or of result",
        "disk": "wrote more than {scratch_bytes} bytes",
    }
    failure, error, value = (failure, beyond[failure].format(**policy), b"") if failure else judge(reply, token, code)
    write_frame(1, json.dumps([failure, error, seconds]).encode())
    write_frame(1, value)


def watch(pid: int, result: int, output: int, policy: dict) -> tuple[str | None, bytes]:
    """(the limit that the program went beyond, or None; its result as written): until then, or until it closes that."""
    deadline = time.monotonic() + policy["seconds"]
    ready = select.poll()
    ready.register(0, 0)  # says only that the parent is gone
    ready.register(result, select.POLLIN)
    ready.register(output, select.POLLIN)
    reply, printed, looked = bytearray(), 0, time.monotonic()
    while (left := deadline - time.monotonic()) > 0:
        for file, _ in ready.poll(min(left, TICK) * 1000):
            data = os.read(file, CHUNK) if file else b""
            if file == output and data:
                printed += len(data)
            elif file == output:
                ready.unregister(output)
            elif data:
                reply += data
            else:
                return None, bytes(reply)
        if max(printed, len(reply) - TOKEN_BYTES - len(LOCKED)) > policy["output_bytes"]:
            return "output", b""
        if policy["counts_writes"] and disk.written(pid) > policy["scratch_bytes"]:
            return "disk", b""
        if policy["looks"] and reply and time.monotonic() > looked + TICK:  # a reply: it is locked in
            if disk.held(pid, policy["scratch"]) > policy["scratch_bytes"]:
                return "disk", b""
            looked = time.monotonic()
    return "timeout", b""


def judge(reply: bytes, token: bytes, code: int) -> tuple[str | None, str, bytes]:
    """(failure, error, what the program says under its token). `code`: exit status, or minus the signal."""
    if not reply.startswith(LOCKED):
        raise RuntimeError(f"the program could not be locked in: {reply.decode(errors='replace')}")
    said = reply[len(LOCKED) :]
    if said.startswith(token):
        return None, "", said[len(token) :]
    if said:
        return "bad_result", "something else than its result was written where the result goes", b""
    if code < 0:
        return "killed", signal.Signals(-code).name, b""
    return "no_result", f"exited with {code} before it returned", b""


def run_program(policy: dict, result: int, output: int, request: bytes, token: bytes) -> None:
    """Lock this process in, run the source, say what came of it.

    What that needs afterwards is out of the source's way: local names, and an encoder in C, so that patched builtins or
    modules change nothing here.
    """
    write, encode = os.write, c_make_encoder({}, plain, encode_basestring_ascii, None, ":", ",", False, False, False)
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (output, 1), (output, 2)):
        os.dup2(old, new)
    os.dup2(result, 3)
    os.closerange(4, MAX_FILES)
    try:
        lock_in(policy)
    except Exception as error:
        write(3, f"{type(error).__name__}: {error}".encode())
        return
    write(3, LOCKED)
    answer = run(request)
    try:
        text = "".join(encode(answer, 0))
    except MemoryError:
        text = '["memory","the result"]'
    except BaseException as error:
        text = "".join(encode(["bad_result", describe(error)], 0))
    left = token + text.encode()
    while left:
        left = left[write(3, left) :]


def plain(value: object, get=getattr) -> object:
    """A number that the encoder does not know as one that it does: of numpy the bool, int or float that it holds, of
    Fraction, Decimal and the like a float. It is the program's own code that converts: it chooses its result anyway.
    """
    convert = get(value, "item", None) or get(value, "__float__", None)
    if convert is None:
        raise TypeError(f"a result of type {type(value).__name__} is not JSON")
    return convert()


def run(request: bytes) -> list:
    """[None, the value] of the function that the source defines, or [failure, error]."""
    try:
        source, name, arguments = json.loads(request)
        program = types.ModuleType("program")
        sys.modules["program"] = program  # where dataclasses and pickle look a class up
        exec(compile(source, "program", "exec"), program.__dict__)
        function = program.__dict__.get(name)
        if not callable(function):
            return ["no_function", f"the source defines no function {name!r}"]
        return [None, function(*arguments)]
    except MemoryError:
        return ["memory", "MemoryError"]
    except BaseException as error:  # SystemExit, and whatever else a program raises
        full = isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC)
        return ["disk" if full else "exception", describe(error)]


def describe(error: BaseException) -> str:
    """'ValueError: last line of its message', bounded."""
    try:
        lines = str(error).strip().splitlines() or [""]
    except BaseException:
        lines = [""]
    return f"{type(error).__name__}: {lines[-1]}"[:MAX_ERROR]


def lock_in(policy: dict) -> None:
    """Give up what a program must not have: for good, for this process and whatever it could become. OSError where
    the kernel refuses."""
    os.chdir(policy["scratch"])
    limits = {
        resource.RLIMIT_AS: policy["memory_bytes"],
        resource.RLIMIT_CPU: math.ceil(policy["seconds"]) + 1,
        resource.RLIMIT_FSIZE: policy["scratch_bytes"],
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)))
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if policy["landlock"]:
        landlock(policy["landlock"], policy["readable"], policy["scratch"])
    instructions = base64.b64decode(policy["filter"])
    array = ctypes.create_string_buffer(instructions, len(instructions))
    filter_ = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(array))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0))


def landlock(rights: dict[str, int], readable: list[str], scratch: str) -> None:
    """Allow reading below `readable`, and what is not for devices, sockets and programs in `scratch`: landlock(7)."""
    ruleset = check(libc.syscall(LANDLOCK_CREATE_RULESET, struct.pack("=Q", rights["handled"]), 8, 0))
    for path, allowed in [*((path, rights["read"]) for path in readable), (scratch, rights["scratch"])]:
        file = os.open(path, os.O_PATH)
        if not os.path.isdir(path):
            allowed &= rights["file"]
        rule = struct.pack("=Qi", allowed, file)
        check(libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0))
        os.close(file)
    check(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def check(returned: int) -> int:
    if returned < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return returned


def read_frame(file: int) -> bytes:
    return read_exactly(file, struct.unpack(">I", read_exactly(file, 4))[0])


def read_exactly(file: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(file, size - len(data))
        if not part:
            raise EOFError("the other end is gone")
        data += part
    return bytes(data)


def write_frame(file: int, data: bytes) -> None:
    left = memoryview(struct.pack(">I", len(data)) + data)
    while left:
        left = left[os.write(file, left) :]


if __name__ == "__main__":
    main()
