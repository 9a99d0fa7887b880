"""Programs that try to get out, each with what must become of it; run by test_sandbox_attacks.py as several users.

`python tests/graders/sandbox_attacks.py landlock` prints what became of each, as JSON.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil

from tasks.graders.sandbox import Limits, Sandbox

LIMITS = Limits(seconds=30, memory_mb=256, output_bytes=64 * 1024, scratch_mb=8)
IMPATIENT = Limits(seconds=1, memory_mb=256)
SMALL = Limits(seconds=10, memory_mb=128, scratch_mb=8)
MEMORY = "/dev/shm"
SECRET = "a-key-that-is-only-the-parent's"
PR_SET_CHILD_SUBREAPER = 36

LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
REACH = LIBC + "def must(x):\n    if x == -1: raise OSError(ctypes.get_errno(), 'refused')\n    return x\n"

# name: (kind of failure, or the value that an attack in vain returns; the source, where f(parent) is called).
# `parent` has: secret, a file; folder, where it lies; pid; port, of a server on this machine.
ATTACKS = {
    "read a file outside": ("exception", "def f(parent): return open(parent['secret']).read()"),
    "read the users": ("exception", "def f(parent): return open('/etc/passwd').read()"),
    "list a folder outside": ("exception", "import os\ndef f(parent): return os.listdir(parent['folder'])"),
    "write a file outside": ("exception", "def f(parent): open(parent['folder'] + '/new', 'w').write('x')"),
    "make a folder outside": ("exception", "import os\ndef f(parent): os.mkdir(parent['folder'] + '/new')"),
    "remove a file outside": ("exception", "import os\ndef f(parent): os.unlink(parent['secret'])"),
    "truncate by path": ("exception", "import os\ndef f(parent): os.truncate(parent['secret'], 0)"),
    "truncate while opening to read": (
        "exception",
        "import os\ndef f(parent):\n    open('x', 'w').write('x')\n    os.open('x', os.O_RDONLY | os.O_TRUNC)",
    ),
    "chmod a file outside": ("exception", "import os\ndef f(parent): os.chmod(parent['secret'], 0o777)"),
    "touch a file outside": ("exception", "import os\ndef f(parent): os.utime(parent['secret'], (0, 0))"),
    "symbolic link out": (
        "exception",
        "import os\ndef f(parent):\n    os.symlink(parent['secret'], 'x')\n    return open('x').read()",
    ),
    "symbolic link to a folder out": (
        "exception",
        "import os\ndef f(parent):\n    os.symlink(parent['folder'], 'x')\n    return open('x/new', 'w').write('x')",
    ),
    "hard link out": ("exception", "import os\ndef f(parent):\n    os.link(parent['secret'], 'x')"),
    "rename out": (
        "exception",
        "import os\ndef f(parent):\n    open('x', 'w').close()\n    os.rename('x', parent['folder'] + '/new')",
    ),
    "write beside the scratch": ("exception", "def f(parent): open('../new', 'w').close()"),
    "connect": (
        "exception",
        "import socket\ndef f(parent): socket.create_connection(('127.0.0.1', parent['port']))",
    ),
    "look a name up": ("exception", "import socket\ndef f(parent): return socket.getaddrinfo('example.com', 80)"),
    "a unix socket": ("exception", "import socket\ndef f(parent): return socket.socketpair()[0].fileno()"),
    "fork bomb": ("exception", "import os\ndef f(parent):\n    while True: os.fork()"),
    "fork bomb that swallows errors": (
        "timeout",
        "import os\ndef f(parent):\n    while True:\n        try: os.fork()\n        except BaseException: pass",
    ),
    "thread bomb": (
        "exception",
        """
        import threading, time
        def f(parent):
            while True: threading.Thread(target=time.sleep, args=(1000,)).start()
        """,
    ),
    "memory bomb": ("memory", "def f(parent): return len(bytearray(10**9))"),
    "memory bomb in small parts": ("memory", "def f(parent):\n    x = []\n    while True: x.append(bytearray(10**6))"),
    "memory as a file": ("exception", "import os\ndef f(parent): return os.memfd_create('x')"),
    "memory of System V": ("exception", REACH + "def f(parent): return must(libc.shmget(0, 1 << 20, 0o1600))"),
    "output flood": ("output", "def f(parent):\n    while True: print('x' * 1000)"),
    "flood on stderr": ("output", "import sys\ndef f(parent):\n    while True: sys.stderr.write('x' * 1000)"),
    "one file too large": ("disk", "def f(parent): open('x', 'wb').write(bytes(20 << 20))"),
    "many files, deleted while open": (
        "disk",
        """
        import os, time
        def f(parent):
            files = []
            for i in range(20):
                files.append(open(str(i), 'wb'))
                files[-1].write(bytes(1 << 20))
                files[-1].flush()
                os.unlink(str(i))
            time.sleep(1000)
        """,
    ),
    "infinite loop": ("timeout", "def f(parent):\n    while True: pass"),
    "infinite loop at the top": ("timeout", "while True: pass"),
    "sleep through signals": (
        "timeout",
        """
        import signal, time
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        def f(parent):
            while True:
                try: time.sleep(1000)
                except BaseException: pass
        """,
    ),
    "sleep with all files closed": (
        "killed",
        "import os, time\ndef f(parent):\n    os.closerange(0, 1000)\n    time.sleep(1000)",
    ),
    "kill the parent": ("exception", "import os\ndef f(parent): os.kill(parent['pid'], 9)"),
    "kill the supervisor": ("exception", "import os\ndef f(parent): os.kill(os.getppid(), 9)"),
    "kill the group": ("exception", "import os\ndef f(parent): os.killpg(0, 9)"),
    "kill everything": ("exception", "import os\ndef f(parent): os.kill(-1, 9)"),
    "kill by a thread's number": (
        "exception",
        REACH + "def f(parent): must(libc.tgkill(os.getppid(), os.getppid(), 9))",
    ),
    "have the kernel send the signal": (
        "exception",
        "import fcntl, os\ndef f(parent): fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    ),
    "type into the terminal": ("exception", "import fcntl\ndef f(parent): fcntl.ioctl(0, 0x5412, b'x')"),
    "a daemon that outlives": (
        "exception",
        """
        import os, time
        def f(parent):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0: time.sleep(1000)
            return 'reached'
        """,
    ),
    "a session of its own": ("exception", "import os\ndef f(parent): os.setsid()"),
    "another user": ("exception", "import os\ndef f(parent): os.setresuid(1, 1, 1)"),
    "root again": ("exception", REACH + "def f(parent): must(libc.unshare(0x10000000))"),
    "read its own environment": ("exception", "def f(parent): return open('/proc/self/environ').read()"),
    "read the parent's environment": (
        "exception",
        "def f(parent): return open(f'/proc/{parent[\"pid\"]}/environ').read()",
    ),
    "find the key in its environment": (False, f"import os\ndef f(parent): return {SECRET!r} in str(os.environ)"),
    "ptrace": ("exception", REACH + "def f(parent): must(libc.ptrace(16, os.getppid(), 0, 0))"),
    "read another's memory": (
        "exception",
        REACH + "def f(parent): must(libc.process_vm_readv(os.getppid(), b'0' * 16, 1, b'0' * 16, 1, 0))",
    ),
    "higher limits": ("exception", "import resource\ndef f(parent): resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    "the parent's limits": (
        "exception",
        "import os, resource\ndef f(parent): resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    ),
    "run a shell": ("exception", "import os\ndef f(parent): os.execv('/bin/sh', ['sh', '-c', 'exit'])"),
    "run a shell beside": ("exception", "import subprocess\ndef f(parent): return subprocess.run(['/bin/sh']).args"),
    "fork by its number": (
        "exception",
        REACH + "def f(parent): return must(libc.syscall({'x86_64': 57}.get(os.uname().machine, 220), 17, 0, 0, 0, 0))",
    ),
    "clone3 by its number": ("exception", REACH + "def f(parent): return must(libc.syscall(435, b'0' * 88, 88))"),
    "io_uring": ("exception", REACH + "def f(parent): return must(libc.syscall(425, 8, b'0' * 120))"),
    "the other table of system calls": (
        "exception",
        REACH + "def f(parent): return must(libc.syscall(0x40000000 + 39))",  # x32's getpid
    ),
    "forge on stdout": ("no_result", "import os\nprint('[null, 1.0]', flush=True)\nos._exit(0)"),
    "forge on every file": (
        "bad_result",
        """
        import os
        for file in range(3, 64):
            try: os.write(file, b'[null,1.0]')
            except OSError: pass
        os._exit(0)
        """,
    ),
    "forge, then return": (
        "bad_result",
        "import os\ndef f(parent):\n    os.write(3, b'[null,1.0]')\n    return 0.25",
    ),
    "exit with 0": ("no_result", "import os\nos._exit(0)"),
    "sys.exit with 0": ("exception", "import sys\nsys.exit(0)"),
    "crash": ("killed", "import ctypes\ndef f(parent): ctypes.string_at(0)"),
    "patch json": (
        0.25,
        """
        import json, json.encoder
        json.dumps = json.JSONEncoder.encode = json.JSONEncoder.iterencode = lambda *a, **k: '[null, 1.0]'
        json.encoder.c_make_encoder = json.encoder.encode_basestring_ascii = lambda *a: '[null, 1.0]'
        def f(parent): return 0.25
        """,
    ),
    "patch builtins": (
        0.25,
        """
        import builtins
        def f(parent):
            builtins.isinstance = builtins.len = builtins.str = builtins.float = lambda *a: 1.0
            builtins.memoryview = builtins.print = lambda *a, **k: b''
            return 0.25
        """,
    ),
    "patch os": (0.25, "import os\nos.write = os._exit = lambda *a: 0\ndef f(parent): return 0.25"),
    "patch what runs it": (
        0.25,
        """
        import sys
        import __main__
        for name in ('plain', 'describe', 'write_frame', 'judge', 'supervise'):
            setattr(__main__, name, lambda *a: '[null, 1.0]')
        for name in ('os', 'json', 'json.encoder', '_json', 'builtins', '__main__'):
            sys.modules[name] = None
        def f(parent): return 0.25
        """,
    ),
    "a number that is another": (
        0.25,
        """
        class Number(float): __repr__ = __str__ = __float__ = lambda self: '1.0'
        def f(parent): return Number(0.25)
        """,
    ),
    "a number that is never one": (
        "bad_result",
        """
        class Number:
            def __float__(self): return Number()
        def f(parent): return [Number()]
        """,
    ),
    "a number that is itself": (
        "bad_result",
        "class Number:\n    def item(self): return self\ndef f(parent): return Number()",
    ),
    "a number that takes for ever": (
        "timeout",
        "class Number:\n    def __float__(self):\n        while True: pass\ndef f(parent): return Number()",
    ),
    "a number that exits": (
        "no_result",
        "import os\nclass Number:\n    def item(self): os._exit(0)\ndef f(parent): return Number()",
    ),
    "a number that forges": (
        "bad_result",
        """
        import os
        class Number:
            def __float__(self): return os.write(3, b'[null,1.0]') * 1.0
        def f(parent): return Number()
        """,
    ),
    "not a number": ("bad_result", "def f(parent): return float('nan')"),
    "infinity": ("bad_result", "def f(parent): return [1e999]"),
    "not JSON": ("bad_result", "def f(parent): return object()"),
    "half a character": ("bad_result", "def f(parent): return {chr(0xd800): 1}"),
    "huge result": ("output", "def f(parent): return 'x' * 10**6"),
    "huge integer": ("bad_result", "def f(parent): return 10**5000"),
    "deep result": ("bad_result", "def f(parent):\n    x = []\n    for _ in range(200): x = [x]\n    return x"),
    "deeper result": ("bad_result", "def f(parent):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x"),
    "result in itself": ("bad_result", "def f(parent):\n    x = []\n    x.append(x)\n    return x"),
    "deep source": ("exception", "def f(parent): return " + "(" * 5000 + ")" * 5000),
    "endless recursion": ("exception", "def f(parent): return f(parent)"),
    "an error that raises": (
        "exception",
        "class E(BaseException):\n    def __str__(self): raise self\ndef f(parent): raise E",
    ),
    "an error of a megabyte": ("exception", "def f(parent): raise ValueError('x' * 10**6)"),
    "wait for input": ("", "import sys\ndef f(parent): return sys.stdin.read()"),
    "folders of great depth": (
        None,
        "import os\ndef f(parent):\n    for _ in range(1500):\n        os.mkdir('x', 0o300)\n        os.chdir('x')",
    ),
}

FILL = """
import ctypes, mmap, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
def filled(name, flags=mmap.MAP_SHARED):
    file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, 8 << 20)
    with mmap.mmap(file, 8 << 20, flags) as pages:
        for place in range(0, 8 << 20, 4096): pages[place]  # a read of a hole fills it too
    return file
"""
# With the scratch on a tmpfs. Each fills 40 times what it may; only in vain is it over in time.
MEMORY_ATTACKS = {
    "mapped files": """
        def f(parent):
            for n in range(40): os.close(filled(str(n)))
            time.sleep(1000)
        """,
    "files mapped as private": """
        def f(parent):
            for n in range(40): os.close(filled(str(n), mmap.MAP_PRIVATE))
            time.sleep(1000)
        """,
    "mapped files, deleted while open": """
        def f(parent):
            for n in range(40):
                filled(str(n))
                os.unlink(str(n))
            time.sleep(1000)
        """,
    "mapped files, deleted and closed but for a page": """
        def f(parent):
            for n in range(40):
                file = filled(str(n))
                libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_SHARED, file, ctypes.c_size_t(0))
                os.close(file)
                os.unlink(str(n))
            time.sleep(1000)
        """,
    "mapped files in folders that cannot be listed": """
        def f(parent):
            for n in range(40):
                os.mkdir('x', 0o300)
                os.chdir('x')
                os.close(filled('y'))
            time.sleep(1000)
        """,
    "mapped files that move about": """
        def f(parent):
            for n in range(40):
                os.makedirs(f'a/{n}')
                os.close(filled(f'a/{n}/x'))
            while True:
                os.rename('a', 'b')
                os.rename('b', 'a')
        """,
    "mapped files in too deep a folder": """
        def f(parent):
            for n in range(40):
                os.mkdir('x' * 200)
                os.chdir('x' * 200)
            for n in range(40): os.close(filled(str(n)))
            time.sleep(1000)
        """,
}

LEAVE = """
import builtins, gc, json, os, random, sys, tempfile
def f(parent):
    builtins.left = json.left = sys.left = os.environ['left'] = 'a word from ' + 'the call before'
    sys.modules['left'] = json
    open('left', 'w').close()
    open(tempfile.gettempdir() + '/left', 'w').close()
"""
FIND = """
import builtins, gc, json, os, sys, tempfile
def f(parent):
    found = [name for name, where in [('builtins', vars(builtins)), ('json', vars(json)), ('sys', vars(sys)),
             ('environ', os.environ), ('modules', sys.modules), ('scratch', os.listdir())] if 'left' in where]
    texts = [x for holder in gc.get_objects() for x in gc.get_referents(holder) if isinstance(x, (str, bytes))]
    mark = 'only the ' + 'call before was given this'
    return found + [str(x) for x in texts if mark in str(x)]
"""


def main() -> None:
    isolation = sys.argv[1]
    ctypes.CDLL(None).prctl(
        PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    )  # what outlives its parent becomes a child of this process
    os.environ["SECRET"] = SECRET
    signal.alarm(500)
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory() as scratch,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        tempfile.tempdir = scratch  # other sandboxes of this machine come and go in the usual one
        folder = Path(name)
        (folder / "secret").write_text(SECRET)
        parent = {"secret": f"{folder}/secret", "folder": name, "pid": os.getpid(), "port": server.getsockname()[1]}
        before = look(folder)
        became = run(isolation, parent) | run_in_memory(isolation, parent)
        became["outside is as it was"] = look(folder) == before
        server.settimeout(0)
        try:
            server.accept()
            became["nobody connected"] = False
        except BlockingIOError:
            became["nobody connected"] = True
    became["processes left"] = processes()
    print(json.dumps(became))


def run(isolation: str, parent: dict) -> dict:
    """What became of each attack, and what was left to see by the call after one."""
    scratch = Path(tempfile.gettempdir())
    with (
        Sandbox(LIMITS, isolation, workers=1, sources=["import numpy.random"]) as sandbox,
        Sandbox(IMPATIENT, isolation, workers=1) as impatient,
    ):
        at_rest = processes()
        became = {"user": os.getuid(), "isolation": sandbox.isolation}
        for name, (expected, source) in ATTACKS.items():
            ran = (impatient if expected == "timeout" else sandbox).call(textwrap.dedent(source), "f", parent)
            became[name] = {"failure": ran.failure, "value": ran.value, "error": ran.error, "seconds": ran.seconds}
        sandbox.call(LEAVE, "f", parent | {"word": "only the call before was given this"})
        became["found of the call before"] = sandbox.call(FIND, "f", parent).value
        became["processes beside the workers"] = sorted(set(processes()) - set(at_rest))
        own = [folder for folder in scratch.iterdir() if os.access(folder, os.R_OK)]
        became["scratch in use"] = [str(path) for folder in own for path in folder.iterdir()]
    became["scratch left"] = [str(path) for path in scratch.iterdir()]
    return became


def run_in_memory(isolation: str, parent: dict) -> dict:
    """What became of each attack on a tmpfs; nothing where there is none."""
    if not os.path.isdir(MEMORY):
        return {}
    usual, became = tempfile.tempdir, {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as tempfile.tempdir:
        with Sandbox(SMALL, isolation, workers=1) as sandbox:
            for name, source in MEMORY_ATTACKS.items():
                ran = sandbox.call(FILL + textwrap.dedent(source), "f", parent)
                became[name] = {"failure": ran.failure, "value": ran.value, "error": ran.error}
        became["memory left"] = os.listdir(tempfile.tempdir)
    tempfile.tempdir = usual
    return became


def processes() -> list[int]:
    """Those below this one that are alive, once what is about to end has ended."""
    time.sleep(0.2)
    below = psutil.Process().children(recursive=True)
    return [process.pid for process in below if process.status() != psutil.STATUS_ZOMBIE]


def look(folder: Path) -> list:
    return sorted((path.name, path.read_text(), path.stat().st_mode, path.stat().st_mtime) for path in folder.iterdir())


if __name__ == "__main__":
    main()
