"""Leases of stages and GPUs by real processes, and what kills leave of them."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tasks.locks import Gpus, Lock, forget_dead, visible_gpus

STAGE = "--wait-for-lock repro --single-item sft@1-0"
# takes GPUs as a worker does, says which, and holds them until stdin ends
HOLDER = """
import sys, time
from tasks.locks import Gpus
gpus = Gpus(int(sys.argv[1]))
while not gpus.take():
    time.sleep(0.02)
print(",".join(gpus.names), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of its own: `machine(gpus)` gives it a driver that lists these; its folder of leases is empty."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))

    def make(gpus: list[str]) -> None:
        lines = "\n".join(f"{i}, {name}" for i, name in enumerate(gpus))
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    make([])
    return make


def hold(num: int) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(num)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_gpus_are_those_that_cuda_would_see_by_uuid(machine, monkeypatch):
    machine(["GPU-a", "GPU-b", "GPU-c"])
    assert visible_gpus() == ["GPU-a", "GPU-b", "GPU-c"]
    for said, seen in {
        "2,0": ["GPU-c", "GPU-a"],  # SLURM's numbers
        "GPU-b": ["GPU-b"],
        "": [],
        "-1": [],
        "1,-1,0": ["GPU-b"],  # CUDA reads up to the first that is none
        "MIG-x": ["MIG-x"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert visible_gpus() == seen, said


def test_processes_have_different_gpus_and_wait_where_none_is_free(machine):
    machine(["GPU-a", "GPU-b", "GPU-c"])
    pair, one = hold(2), hold(1)
    held = [holder.stdout.readline().strip().split(",") for holder in (pair, one)]
    assert sorted(map(len, held)) == [1, 2] and sorted([*held[0], *held[1]]) == ["GPU-a", "GPU-b", "GPU-c"]
    late = Gpus(1)
    assert not late.take() and late.names == []
    one.kill()  # kill -9 frees as an end does
    one.wait()
    assert late.take() and late.names == held[1]
    late.release()
    pair.communicate("")
    whole = Gpus(3)
    assert whole.take() and len(whole.names) == 3
    whole.release()


def test_two_that_want_all_gpus_do_not_wait_for_each_other(machine):
    machine(["GPU-a", "GPU-b"])
    holders = [hold(2) for _ in range(3)]
    while holders:
        speaking, _, _ = select.select([holder.stdout for holder in holders], [], [], 120)
        (now,) = (holder for holder in holders if holder.stdout in speaking)
        holders.remove(now)
        assert now.communicate("")[0].strip() == "GPU-a,GPU-b"


def test_one_that_wants_several_is_not_overtaken_by_those_that_want_one(machine):
    machine(["GPU-a", "GPU-b"])
    running, pair, small = Gpus(1), Gpus(2), Gpus(1)
    assert running.take()
    assert not pair.take()  # it keeps the free one and waits for the other
    assert not small.take()
    running.release()
    assert not small.take()
    assert pair.take() and not small.take()
    pair.release()
    assert small.take()
    small.release()


def test_too_few_gpus_are_an_error_that_names_them_and_none_at_all_is_a_cpu(machine):
    none = Gpus(2)
    assert none.take() and none.names == [] and none.files == []
    machine(["GPU-a"])
    with pytest.raises(ValueError, match=r"2 GPUs .* has 1: GPU-a"):
        Gpus(2)


def test_a_lock_is_held_until_the_last_that_inherited_it_is_gone(tmp_path):
    """So a worker that was killed leaves its stage locked until the supervisor has stopped the stage's processes."""
    mine, other = Lock(tmp_path / "stage"), Lock(tmp_path / "stage")
    assert mine.take() and not other.take()
    child = subprocess.Popen(["sleep", "60"], pass_fds=mine.files)
    mine.release()
    assert not other.take()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert other.take()
    other.release()


def test_what_a_killed_run_left_in_dvcs_table_goes_and_the_rest_stays(tmp_path):
    """Its number may be in use on this machine: DVC would take it for alive."""
    dead = {"pid": os.getpid(), "cmd": f"dvc/__main__.py {STAGE}"}
    alive = {"pid": os.getpid(), "cmd": f"dvc/__main__.py {STAGE}1"}
    table = {"write": {"/w/a": dead, "/w/b": alive}, "read": {"/w/c": [dead, alive], "/w/d": [dead]}}
    (tmp_path / "rwlock").write_text(json.dumps(table))
    forget_dead(tmp_path, STAGE)
    left = json.loads((tmp_path / "rwlock").read_text())
    assert left == {"write": {"/w/b": alive}, "read": {"/w/c": [alive]}}
    (tmp_path / "rwlock").write_text('{"torn')
    forget_dead(tmp_path, STAGE)
    assert not (tmp_path / "rwlock").exists()
    forget_dead(tmp_path, STAGE)
