"""Specs: every published example loads; what is wrong with a bad one is named, before any work."""

import copy

import pytest

from tasks.graders.openai import parse_spec
from tasks.graders.openai.schema import SpecError
from tests.graders.openai import published
from tests.graders.openai.published import BROKEN_MULTI, MULTI, PUBLISHED, PYTHON, SCORE_MODEL, STRING_CHECK


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_examples_load(name):
    assert parse_spec(copy.deepcopy(PUBLISHED[name]), name).type == PUBLISHED[name]["type"]


@pytest.mark.parametrize("name", ["LABEL_MODEL", "GUIDE_LABEL_MODEL"])
def test_published_label_models_load_within_a_multi_and_only_there(name):
    label = getattr(published, name)
    parse_spec({"type": "multi", "graders": {"tone": label}, "calculate_output": "tone"}, "g.json")
    with pytest.raises(SpecError, match=r"g\.json.*\n.*label_model stands only within a multi"):
        parse_spec(label, "g.json")


def test_the_one_published_example_that_cannot_work_is_told_why():
    with pytest.raises(SpecError, match="unknown name 'text_similarity_score'; the graders are example text sim"):
        parse_spec(BROKEN_MULTI, "g.json")


def test_a_list_of_graders_is_called_by_names():
    first, second = ({**STRING_CHECK, "name": name} for name in ("a", "b"))
    spec = parse_spec({"type": "multi", "graders": [first, second], "calculate_output": "a * b"}, "g.json")
    assert list(spec.graders) == ["a", "b"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_pass_threshold_is_taken_by_every_grader_and_changes_nothing(name):
    asked = {**copy.deepcopy(PUBLISHED[name]), "pass_threshold": 0.5}
    plain = {**asked, "pass_threshold": None}
    spec, same = parse_spec(asked, name), parse_spec(plain, name)
    assert spec.pass_threshold == 0.5 and spec.model_copy(update={"pass_threshold": None}) == same
    label = {**published.LABEL_MODEL, "pass_threshold": 1}
    parse_spec({"type": "multi", "graders": {"tone": label}, "calculate_output": "tone"}, name)


def changed(spec: dict, **fields) -> dict:
    made = {**copy.deepcopy(spec), **fields}
    return {key: value for key, value in made.items() if value is not ...}


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ([], ["(the grader)"]),
        ({}, ["type"]),
        ({"type": "regex"}, ["regex", "string_check"]),
        (changed(STRING_CHECK, operation="contains"), ["string_check.operation"]),
        (changed(STRING_CHECK, input=...), ["string_check.input"]),
        (changed(STRING_CHECK, threshold=1), ["string_check.threshold", "Extra inputs"]),
        (changed(STRING_CHECK, input="{{ output }}"), ["string_check.input", "{{ output }} is no variable"]),
        (changed(STRING_CHECK, input="{{ sample.text }}"), ["sample has no text", "output_text"]),
        (changed(STRING_CHECK, input="{{ item.x | upper }}"), ["is no variable"]),
        (changed(STRING_CHECK, input="{{ item.__class__.x() }}"), ["is no variable"]),
        (changed(published.TEXT_SIMILARITY, evaluation_metric="cosine"), ["cosine", "evals only"]),
        (changed(published.TEXT_SIMILARITY, evaluation_metric="rouge_6"), ["evaluation_metric"]),
        (changed(SCORE_MODEL, range=[1, 0]), ["range", "[1.0, 0.0]"]),
        (changed(SCORE_MODEL, range=[0, float("inf")]), ["range.1", "finite"]),
        (changed(SCORE_MODEL, input=[]), ["score_model.input"]),
        (changed(SCORE_MODEL, input=[{"role": "judge", "content": "x"}]), ["input.0.role"]),
        (changed(SCORE_MODEL, input=[{"role": "user", "content": {"type": "input_audio"}}]), ["input_audio"]),
        (changed(SCORE_MODEL, sampling_params={"top_k": 5}), ["sampling_params.top_k"]),
        (changed(PYTHON, source="def grade(sample):\n return 1"), ["two arguments"]),
        (changed(PYTHON, source="def score(sample, item): return 1"), ["grade(sample, item)"]),
        (changed(PYTHON, source="def grade(sample, item) return 1"), ["is no Python"]),
        (changed(PYTHON, source=PYTHON["source"] + "\n#" + "x" * 256_000), ["256 kB"]),
        (changed(MULTI, graders={}), ["graders"]),
        (changed(MULTI, graders=[{**STRING_CHECK, "name": ""}]), ["needs a name"]),
        (changed(MULTI, graders=[STRING_CHECK, STRING_CHECK]), ["two graders are called"]),
        (changed(MULTI, graders={"inner": MULTI}), ["inner is a multi within a multi"]),
        (changed(MULTI, calculate_output="(name + mail) / 2"), ["unknown name 'mail'", "name, email"]),
        (changed(MULTI, calculate_output="name +"), ["calculate_output 'name +'", "the end"]),
    ],
)
def test_a_bad_spec_is_refused_by_name(spec, names):
    with pytest.raises(SpecError) as error:
        parse_spec(spec, "g.json")
    assert all(name in str(error.value) for name in ["g.json", *names]), error.value


def test_the_passing_labels_are_labels():
    label = changed(published.LABEL_MODEL, passing_labels=["positive", "great"])
    with pytest.raises(SpecError, match="passing_labels great: not among labels positive"):
        parse_spec({"type": "multi", "graders": {"tone": label}, "calculate_output": "tone"}, "g.json")
