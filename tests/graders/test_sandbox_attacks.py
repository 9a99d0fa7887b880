"""Every attack of sandbox_attacks.py is stopped with its kind, as this user and as `nobody`, and leaves nothing."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("sandbox_attacks.py")
NOBODY = 65534
WAYS = [(isolation, user) for isolation in ("landlock", "bubblewrap") for user in ("this user", "nobody")]


def load_driver():
    spec = importlib.util.spec_from_file_location("sandbox_attacks", DRIVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attacks = load_driver()


def start(python: str, arguments: list[str], user: str) -> subprocess.CompletedProcess:
    """Python as a user, with this project and the packages installed here."""
    packages = Path(psutil.__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{packages}", "OMP_NUM_THREADS": "1"}
    dropped = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}
    return subprocess.run([python, *arguments], env=environment, cwd="/", capture_output=True, text=True, **dropped)


@functools.cache
def python_for(user: str) -> str | None:
    """An interpreter that the user may run (ours may lie in a folder of root's), or None."""
    same = f"import sys, tasks.graders.sandbox; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            if start(python, ["-c", same], user).returncode == 0:
                return python
        except PermissionError:  # from execve
            continue
    return None


@functools.cache
def drive(isolation: str, user: str) -> subprocess.CompletedProcess:
    return start(python_for(user), [str(DRIVER), isolation], user)


def became(isolation: str, user: str) -> dict:
    """What the driver prints; one run of it a way."""
    if isolation == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    if user == "nobody" and os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    if python_for(user) is None:
        pytest.skip("nobody can read neither a Python of this version nor this checkout")
    done = drive(isolation, user)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=WAYS, ids=" as ".join)
def outcome(request):
    return became(*request.param)


@pytest.mark.parametrize("attack", attacks.ATTACKS)
def test_an_attack_is_stopped_with_its_kind(outcome, attack):
    expected, _ = attacks.ATTACKS[attack]
    ran = outcome[attack]
    if ran["failure"] is None:
        assert ran["value"] == expected and type(ran["value"]) is type(expected), ran
    else:
        assert (ran["failure"], ran["value"]) == (expected, None), ran
        assert 0 < len(ran["error"]) <= 200, "a short text says what happened"


@pytest.mark.parametrize("attack", attacks.MEMORY_ATTACKS)
def test_files_that_are_memory_stay_within_the_limit_of_files(outcome, attack):
    if "memory left" not in outcome:
        pytest.skip(f"there is no {attacks.MEMORY}")
    bubblewrap = outcome["isolation"].startswith("bubblewrap")  # its tmpfs is of that size: beyond it pages are missing
    expected = ("killed", "SIGBUS") if bubblewrap else ("disk", "wrote more than 8388608 bytes")
    assert (outcome[attack]["failure"], outcome[attack]["error"]) == expected
    assert outcome["memory left"] == []


def test_what_is_refused_is_refused_by_the_system(outcome):
    """Not by a mistake in the attack, which would be an exception too."""
    own_mistakes = ("NameError", "SyntaxError", "AttributeError", "TypeError", "KeyError", "ImportError")
    raised = {name: outcome[name] for name in attacks.ATTACKS if outcome[name]["failure"] == "exception"}
    mistaken = {name for name, ran in raised.items() if ran["error"].startswith(own_mistakes)}
    assert mistaken == {"deep source"}


def test_nothing_outside_changed_and_nobody_called(outcome):
    assert outcome["outside is as it was"]
    assert outcome["nobody connected"]


def test_no_process_and_no_file_is_left(outcome):
    assert outcome["processes beside the workers"] == []
    assert outcome["processes left"] == []
    assert outcome["scratch in use"] == []
    assert outcome["scratch left"] == []


def test_a_call_finds_nothing_of_the_one_before(outcome):
    assert outcome["found of the call before"] == []


@pytest.mark.parametrize("isolation", ["landlock", "bubblewrap"])
def test_nobody_is_an_ordinary_user(isolation):
    assert became(isolation, "nobody")["user"] == NOBODY
