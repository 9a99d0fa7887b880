"""`python -m tasks.graders` on OpenAI's grader files: the answers of the hosted endpoints."""

import json

import pytest

from tasks.graders.__main__ import main
from tests.graders.openai.endpoint import graded, serving
from tests.graders.openai.published import BROKEN_MULTI, MULTI, PUBLISHED, PYTHON, RUN_SCORE_MODEL, STRING_CHECK

ERRORS = {  # the published answer of graders/run, key by key
    "formula_parse_error": False,
    "sample_parse_error": False,
    "truncated_observation_error": False,
    "unresponsive_reward_error": False,
    "invalid_variable_error": False,
    "other_error": False,
    "python_grader_server_error": False,
    "python_grader_server_error_type": None,
    "python_grader_runtime_error": False,
    "python_grader_runtime_error_details": None,
    "model_grader_server_error": False,
    "model_grader_refusal_error": False,
    "model_grader_parse_error": False,
    "model_grader_server_error_details": None,
}


@pytest.fixture
def command(tmp_path, capsys):
    """(exit code, stdout as JSON or stderr) of a command on contents, each written to a file named like its flag."""

    def command(name: str, **contents):
        arguments = [name]
        for flag, content in contents.items():
            path = tmp_path / f"{flag}.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            arguments += [f"--{flag}", str(path)]
        code = main(arguments)
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if code == 0 else printed.err

    return command


@pytest.mark.parametrize("name", PUBLISHED)
def test_validate_gives_the_grader_back_unchanged(command, name):
    assert command("validate", grader=PUBLISHED[name]) == (0, {"grader": PUBLISHED[name]})


def test_run_answers_in_the_published_shape(command, monkeypatch):
    with serving(lambda *_: graded(1.0)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        bear = "fuzzy wuzzy was a bear"
        sample, item = {"output_text": bear}, {"reference_answer": bear}
        code, answer = command("run", grader=RUN_SCORE_MODEL, sample=sample, item=item)
    assert code == 0 and answer["metadata"].pop("execution_time") > 0
    tokens = {"prompt_tokens": 190, "total_tokens": 324, "completion_tokens": 134, "cached_tokens": 0}
    assert answer == {
        "reward": 1.0,
        "metadata": {
            "name": "Example score model grader",
            "type": "score_model",
            "errors": ERRORS,
            "scores": {},
            "token_usage": tokens,
            "sampled_model_name": "judge-1",
        },
        "sub_rewards": {},
        "model_grader_token_usage_per_model": {"judge-1": tokens},
    }


def test_run_of_a_multi_grader_without_a_name(command):
    sample = {"choices": [{"message": {"role": "assistant", "content": '{"name": "John Doe"}'}}]}
    code, answer = command("run", grader=MULTI, sample=sample, item={"name": "John Doe", "email": "j@x"})
    assert (code, answer["reward"], answer["sub_rewards"]) == (0, 0.5, {"name": 1.0, "email": 0.0})
    metadata = answer["metadata"]
    assert (metadata["name"], metadata["token_usage"], metadata["sampled_model_name"]) == ("multi", None, None)
    assert metadata["errors"] == {**ERRORS, "invalid_variable_error": True}


def test_run_of_a_python_grader_that_raises(command):
    grader = {**PYTHON, "source": "def grade(sample, item):\n    return item['x']"}
    code, answer = command("run", grader=grader, sample={"output_text": ""}, item={})
    errors = answer["metadata"]["errors"]
    assert code == 0 and answer["reward"] == 0 and errors["python_grader_runtime_error"] is True
    assert "KeyError" in errors["python_grader_runtime_error_details"]


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        ({"grader": BROKEN_MULTI}, ["grader.json", "text_similarity_score"]),
        ({"grader": {**STRING_CHECK, "operation": "is"}}, ["grader.json", "string_check.operation"]),
        ({"grader": {"type": 3}}, ["grader.json", "type"]),
        ({"grader": '{"type": "string_check", "type": "python"}'}, ["grader.json", "'type' is given twice"]),
        ({"grader": '{"type": "multi", "graders": {"a": {}, "b": {}, "a": {}}}'}, ["'a' is given twice"]),
        ({"sample": {"text": "x"}}, ["sample.json", "unknown text"]),
        ({"sample": {}}, ["sample.json", "output_text"]),
        ({"sample": "{"}, ["sample.json", "JSON"]),
        ({"item": []}, ["item.json", "list"]),
        ({"item": '{"label": NaN}'}, ["item.json", "NaN"]),
        ({"grader": RUN_SCORE_MODEL}, ["grader.json", "OPENAI_BASE_URL"]),
    ],
)
def test_a_bad_file_is_named(command, monkeypatch, contents, names):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    contents = {"grader": STRING_CHECK, "sample": {"output_text": "x"}, "item": {"label": "x"}, **contents}
    code, printed = command("run", **contents)
    assert code == 2 and all(name in printed for name in names), printed
