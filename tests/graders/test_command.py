"""`python -m tasks.graders`: what it prints, and how a bad file is named."""

import json
import subprocess
import sys

import pytest

from tasks.graders.__main__ import main

GRADER = {
    "detection": {"iou": 7, "confidence": 2, "format": 1, "iou_threshold": 0.5},
    "classification": {"label": 0.9, "format": 0.1},
    "grounding": {"iou": 0.9, "format": 0.1},
    "maths": {"answer": 1, "partial": 0.1, "format": 0},
    "program": {"answer": 1, "format": 0, "seconds": 1.0, "memory_mb": 256},
    "ranking": {"answer": 0.8, "format": 0.2, "aliases": {"CLK": ["clock"]}},
}
BOXES = [[100, 100, 300, 300]]


@pytest.fixture
def write(tmp_path):
    def write(name: str, content) -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def run(write, grader, item, sample) -> list[str]:
    files = (("grader", grader), ("item", item), ("sample", sample))
    return ["run", *(part for name, content in files for part in (f"--{name}", write(f"{name}.json", content)))]


@pytest.mark.parametrize(
    ("item", "content", "printed"),
    [
        (
            {"task": "grounding", "asked": "the largest", "boxes": BOXES},
            "(100,100),(300,300)",
            {"reward": 1.0, "sub_rewards": {"iou": 1.0, "format": 1.0}, "errors": []},
        ),
        (
            {"task": "classification", "label": "red seven"},
            "seven",
            {"reward": 0.1, "sub_rewards": {"label": 0.0, "format": 1.0}, "errors": ["wrong_label"]},
        ),
        (
            {"task": "detection", "asked": "six"},
            "[",
            {"reward": 0.0, "sub_rewards": {"iou": 0.0, "confidence": 0.0, "format": 0.0}, "errors": ["bad_list"]},
        ),
        (
            {"task": "maths", "label": "1,234"},
            "$1235",
            {"reward": 0.1, "sub_rewards": {"answer": 0.1, "format": 1.0}, "errors": ["wrong_answer"]},
        ),
        (
            {"task": "program", "label": "7"},
            "def solution():\n    return 3 + 4",
            {"reward": 1.0, "sub_rewards": {"answer": 1.0, "format": 1.0}, "errors": []},
        ),
        (
            {"task": "ranking", "label": "CLK"},
            "ARX, ARX, clock",
            {"reward": 0.76, "sub_rewards": {"answer": 0.7, "format": 1.0}, "errors": []},
        ),
    ],
    ids=["gold", "hacked", "broken", "a wrong number", "a program", "a ranking"],
)
def test_run_prints_the_grade(write, capsys, item, content, printed):
    sample = {"completion": f"<think>x</think><answer>{content}</answer>"}
    assert main(run(write, GRADER, item, sample)) == 0
    got = json.loads(capsys.readouterr().out)
    assert got | {"reward": pytest.approx(got["reward"])} == printed


def test_as_a_command(write):
    command = run(write, GRADER, {"task": "detection"}, {"completion": ""})
    done = subprocess.run([sys.executable, "-m", "tasks.graders", *command], capture_output=True, text=True)
    assert json.loads(done.stdout)["errors"] == ["no_answer"]


def test_validate_prints_the_shares(write, capsys):
    assert main(["validate", "--grader", write("g.json", GRADER)]) == 0
    shares = json.loads(capsys.readouterr().out)
    assert shares["detection"] == {"iou": 0.7, "confidence": 0.2, "format": 0.1}
    published = {"classification": {"label": 0, "format": 1, "published": {"lenient": 3}}}
    assert main(["validate", "--grader", write("g.json", published)]) == 0
    shares = json.loads(capsys.readouterr().out)
    assert shares["classification"] == {"label": 0, "format": 0.25, "published/lenient": 0.75}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"grounding": {"iuo": 0.9, "format": 0.1}}, ["grounding.iou", "grounding.iuo"]),
        ({"grounding": {"iou": -1, "format": 0.1}}, ["grounding.iou"]),
        ({"grounding": {"iou": 0, "format": 0}}, ["grounding", "above 0"]),
        ({"grounding": {"iou": "0.9", "format": True}}, ["grounding.iou", "grounding.format"]),
        ({"counting": {}}, ["counting"]),
        ({}, ["no rubric"]),
        ({"classification": {"label": 1, "format": 0, "aliases": {"one": ["x"], "two": ["X"]}}}, ["'two'", "'one'"]),
        ({"maths": {"answer": 1, "format": 0, "partial": 1.0}}, ["maths.partial"]),
        ({"program": {"answer": 1, "format": 0, "seconds": 0}}, ["program.seconds"]),
        ({"ranking": {"answer": 1, "format": 0, "scores": [0.5, 0.7]}}, ["ranking", "must not rise"]),
        ({"grounding": {"iou": 1, "format": 0, "published": {"map": 1}}}, ["grounding.published", "giou"]),
        ("{", ["g.json", "JSON"]),
        ("[]", ["(the file)"]),
    ],
)
def test_validate_names_each_bad_key(write, capsys, content, names):
    assert main(["validate", "--grader", write("g.json", content)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and all(name in printed.err for name in names), printed.err


@pytest.mark.parametrize(
    ("item", "sample", "names"),
    [
        ({"task": "grounding"}, {"completion": ""}, ["item.json", "0 boxes"]),
        ({"task": "grounding", "boxes": [[1, 2, 3]]}, {"completion": ""}, ["boxes.0", "four numbers"]),
        ({"task": "grounding", "boxes": [[3, 2, 1, 4]]}, {"completion": ""}, ["boxes.0", "x1 < x2"]),
        ({"task": "segmentation"}, {"completion": ""}, ["item.json", "task"]),
        (
            {"task": "maths", "label": "seven"},
            {"completion": "<think></think><answer>7</answer>"},
            ["item.json", "'seven'"],
        ),
        ({"task": "ranking"}, {"completion": ""}, ["item.json", "without an answer"]),
        ({"task": "detection"}, {"text": ""}, ["sample.json", "completion", "text"]),
    ],
)
def test_run_names_each_bad_key(write, capsys, item, sample, names):
    assert main(run(write, GRADER, item, sample)) == 2
    printed = capsys.readouterr().err
    assert all(name in printed for name in names), printed


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["validate", "--grader", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_a_question_of_a_job_is_refused_by_name_and_the_isolation_is_chosen(write, capsys):
    check = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 0.25"}
    job = {"job": {"grader": check}}
    assert main(run(write, job, {"task": "job"}, {"completion": "7"})) == 2
    assert "task job cannot be run so; give --grader a file with what stands in job.grader" in capsys.readouterr().err
    assert main([*run(write, check, {}, {"output_text": "7"}), "--isolation", "landlock"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 0.25
