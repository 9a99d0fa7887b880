"""README: every command in it exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path("README.md").read_text()
MODULES = sorted(set(re.findall(r"python -m ((?:tasks|flows|benchmarks)[\w.]*)", README)))
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


def test_a_program_explains_itself():
    done = subprocess.run([sys.executable, "-m", "tasks.slice", "--help"], capture_output=True, text=True, check=True)
    assert "k-shot" in done.stdout
