"""README and docs: every command in them exists, with its flags and overrides."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.compose import compose

README = Path("README.md").read_text()
MODULES = sorted(set(re.findall(r"python -m ((?:tasks|flows|benchmarks)[\w.]*)", README)))
PAGES = "\n".join(file.read_text() for file in (Path("README.md"), *sorted(Path("docs").glob("*.md"))))
COMMANDS = sorted(set(re.findall(r"python -m ((?:tasks|flows|benchmarks)\.[\w.]+)((?: [^`|#\n()]+)?)", PAGES)))
TARGETS = sorted(set(re.findall(r"\bmake ([a-z-]+)", README)))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_named_is_a_program(module):
    path = Path(*module.split("."))
    source = next(p for p in (path.with_suffix(".py"), path / "__main__.py") if p.exists()).read_text()
    assert '__name__ == "__main__"' in source


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_named_exists(target):
    assert re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("experiment", sorted(set(re.findall(r"\+experiment=([\w/]+)", README))))
def test_every_experiment_named_exists(experiment):
    assert Path("conf", "experiment", f"{experiment}.yaml").exists()


@pytest.mark.parametrize("words", [words for module, words in COMMANDS if module in ("flows.sweep", "flows.compose")])
def test_every_override_named_is_taken(words):
    overrides = [word for word in words.split() if re.match(r"[+~]?[a-z][\w./@]*=", word)]
    if not re.search(r"=\.\.\.|NAME|=$|hydra/", words):  # what stands for any value, or needs an extra
        assert compose([re.sub(r"=([^\[,]+),.*", r"=\1", each) for each in overrides])["study"]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "words"), [each for each in COMMANDS if "--" in each[1]])
def test_every_flag_named_is_taken(module, words):
    command = [word for word in shlex.split(words)[:1] if re.fullmatch("[a-z]+", word)]  # run, validate
    done = subprocess.run([sys.executable, "-m", module, *command, "--help"], capture_output=True, text=True)
    taken = set(re.findall(r"--[\w-]+", done.stdout))
    assert set(re.findall(r"--[\w-]+", words)) <= taken


def test_a_program_explains_itself():
    done = subprocess.run([sys.executable, "-m", "tasks.slice", "--help"], capture_output=True, text=True, check=True)
    assert "k-shot" in done.stdout
