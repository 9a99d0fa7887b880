"""dvc.yaml as DVC reads it, the code that its stages run, and who may import whom."""

import ast
import functools
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tasks.params import Params

ROOT = Path(__file__).resolve().parent.parent
GRID = {"k": [1, 2], "seed": [0, 1], "algorithm": ["grpo"], "policy": ["sft", "grpo"], "rerank": ["grpo"]}
OWN = {"matched": "data", "k_own": [1, 2], "k_matched": [], "init": "warmup", "k_warmup": [1, 2]}
SHARED = OWN | {"init": "sft", "k_warmup": []}
MATCHED = OWN | {"matched": "flops", "k_own": [], "k_matched": [1, 2]}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
VIEW = "tasks/tracking.py"  # only shows: no result depends on it, so only `publish` does


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """Stage name -> names of the stages it needs: the real dvc.yaml with a grid of 2 x 2."""
    return read_graph(tmp_path, monkeypatch, OWN)


def read_graph(tmp_path, monkeypatch, matched: dict) -> dict[str, set[str]]:
    Repo.init(tmp_path, no_scm=True)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "grid": GRID | matched}))
    monkeypatch.chdir(tmp_path)
    graph = Repo().index.graph
    return {stage.name: {need.name for need in graph.successors(stage)} for stage in graph}


def test_the_stages_of_a_grid_of_two_by_two(graph):
    points = [f"{k}-{seed}" for k, seed in itertools.product(GRID["k"], GRID["seed"])]
    each = ["slice@{}", "warmup@{}", "sft@{}", "rft@grpo-{}", "grade@sft-{}", "grade@grpo-{}", "rerank@grpo-{}"]
    expected = {name.format(point) for name in each for point in points}
    assert set(graph) == expected | {"prepare", "grade_base", "curves", "report", "publish"}


def test_what_needs_what(graph):
    assert graph["prepare"] == set()
    assert graph["slice@2-1"] == {"prepare"}
    assert graph["warmup@2-1"] == {"prepare", "slice@2-1"}
    assert graph["sft@2-1"] == {"prepare", "slice@2-1"}
    assert graph["rft@grpo-2-1"] == {"prepare", "slice@2-1", "warmup@2-1"}
    assert graph["grade_base"] == {"prepare"}
    assert graph["grade@sft-2-1"] == {"prepare", "grade_base", "sft@2-1"}
    assert graph["grade@grpo-2-1"] == {"prepare", "grade_base", "rft@grpo-2-1"}
    made = {"prepare", "slice@2-1", "warmup@2-1", "rft@grpo-2-1", "grade@grpo-2-1"}
    assert graph["rerank@grpo-2-1"] == made


def test_sft_waits_for_rft_only_where_it_is_to_spend_as_much(tmp_path, monkeypatch):
    graph = read_graph(tmp_path, monkeypatch, MATCHED)
    assert graph["sft_matched@2-1"] == {"prepare", "slice@2-1", "warmup@2-1", "rft@grpo-2-1"}
    assert graph["grade@sft-2-1"] == {"prepare", "grade_base", "sft_matched@2-1"}
    assert not any(name.startswith("sft@") for name in graph)


def test_rft_begins_with_the_sft_policy_where_the_warmup_is_the_same_training(tmp_path, monkeypatch):
    graph = read_graph(tmp_path, monkeypatch, SHARED)
    assert graph["rft@grpo-2-1"] == {"prepare", "slice@2-1", "sft@2-1"}
    assert graph["rerank@grpo-2-1"] == {"prepare", "slice@2-1", "sft@2-1", "rft@grpo-2-1", "grade@grpo-2-1"}
    assert not any(name.startswith("warmup") for name in graph)


def test_the_report_needs_every_grade(graph):
    grades = {name for name in graph if name.startswith("grade")}
    assert len(grades) == 9
    assert grades <= graph["report"]
    assert grades <= graph["publish"]
    reranked = {name for name in graph if name.startswith("rerank")}
    assert len(reranked) == 4
    assert reranked <= graph["report"] & graph["publish"]


@functools.cache
def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside functions; `from a import b` gives both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import, which these tests do not follow"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(module: str) -> set[Path]:
    """The files that importing tasks.a.b runs: b itself and the __init__.py of each package above that holds code."""
    parts = module.split(".")
    own = ROOT.joinpath(*parts).with_suffix(".py")
    inits = [ROOT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    return {file for file in [own, *inits] if file.is_file() and has_code(file)}


@functools.cache
def has_code(file: Path) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


@functools.cache
def code_of(stage: str) -> frozenset[str]:
    """Every file of tasks/ that a stage's module imports, itself included, however indirectly."""
    module = STAGES[stage]["cmd"].split()[2]
    waiting, found = files_of(module), set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            for name in imports(file):
                if name.split(".")[0] == "tasks":
                    waiting |= files_of(name)
    return frozenset(str(file.relative_to(ROOT)) for file in found)


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(dep + "/")


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_the_code_that_it_imports(stage):
    code = code_of(stage)
    assert code, f"{STAGES[stage]['cmd']}: no such module"
    if stage != "publish":
        code -= {VIEW}
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("tasks")]
    missing = {file for file in code if not any(covers(dep, file) for dep in deps)}
    assert not missing, (
        f"dvc.yaml: {stage} imports {sorted(missing)}: add to its deps, or DVC skips it when they change"
    )
    unneeded = {dep for dep in deps if not any(covers(dep, file) for file in code)}
    assert not unneeded, f"dvc.yaml: {stage} imports nothing of {sorted(unneeded)}: a change there would run it again"


@functools.cache
def sections_read(file: Path) -> set[str]:
    """Sections of params.yaml that a file takes as `params.rft`, `job.params.rft` or `load_params().rft`."""
    attributes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
    holders = [(a.attr, ast.unparse(a.value)) for a in attributes]
    names = {name for name, holder in holders if holder.split(".")[-1] in ("params", "load_params()")}
    return set(Params.model_fields) if "model_dump" in names else names & set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_hold_every_section_that_its_code_reads(stage):
    read = set().union(*(sections_read(ROOT / file) for file in code_of(stage)))
    missing = read - set(STAGES[stage]["params"])
    assert not missing, f"dvc.yaml: {stage} reads {sorted(missing)} of params.yaml: add to its params"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_only_of_paths_that_it_needs_or_makes(stage):
    """So that no stage reads what DVC does not know of."""
    words = STAGES[stage]["cmd"].split()[3:]
    made = [next(iter(out)) if isinstance(out, dict) else out for out in STAGES[stage].get("outs", [])]
    known = [*STAGES[stage]["deps"], *made, *(os.path.dirname(out) for out in made)]
    for flag, value in itertools.pairwise(words):
        if flag.startswith("--") and flag not in ("--k", "--seed", "--policy", "--algorithm", "--matched"):
            assert value in known, f"dvc.yaml: {stage} gets {flag} {value}, which is in neither its deps nor its outs"


FORBIDDEN = {
    "tasks": {"hydra", "omegaconf", "flows"},
    "tasks/graders": {"torch", "transformers", "trl", "tasks.models", "tasks.rl", "tasks.scoring"},
    "tasks/scoring": {"torch", "transformers", "tasks.models", "tasks.rl"},
    "tasks/data": {"tasks.graders", "tasks.models", "tasks.rl", "tasks.scoring"},
    "tasks/models": {"tasks.rl", "tasks.scoring"},
    "tasks/rl": {"tasks.scoring"},
}
ONLY_IN = {"prefect": {"tasks/stage.py"}, "mlflow": {VIEW}}
OF_TASKS_IN_FLOWS = ("tasks.stage", "tasks.pulse", "tasks.params", "tasks.jobs")


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_who_may_not_import_whom(folder):
    for file in python_files(folder):
        for name, forbidden in itertools.product(imports(file), FORBIDDEN[folder]):
            assert not f"{name}.".startswith(f"{forbidden}."), f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_prefect_and_mlflow_are_imported_in_one_place_of_tasks(package):
    users = {f for f in python_files("tasks") if any(f"{name}.".startswith(f"{package}.") for name in imports(f))}
    assert {str(file.relative_to(ROOT)) for file in users} == ONLY_IN[package]


def test_flows_use_of_tasks_only_the_stage_the_params_and_jobs():
    for file in python_files("flows"):
        for name in imports(file):
            allowed = name.startswith(OF_TASKS_IN_FLOWS)
            assert allowed or name.split(".")[0] != "tasks", f"{file.relative_to(ROOT)} imports {name}"


def test_a_stage_does_not_wait_for_libraries_that_it_may_not_need():
    """Seconds of imports at each of a study's many stages: TRL's trainers load MLflow, rouge-score loads nltk."""
    listed = "import tasks.rft, tasks.grade, sys; print({'mlflow', 'nltk', 'trl', 'sklearn'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", listed], cwd=ROOT, text=True).strip() == "set()"
