"""Every grader on arbitrary samples and items: finite, in range, free of key order, a kind for each failure.

A hundred examples here, 5,000 in `make test-all`. Python graders, which are the sandbox's, are not among them.
"""

import json
import math
from contextlib import contextmanager
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.graders.openai import make_openai_grader, parse_spec
from tasks.graders.openai.judge import Reply
from tasks.graders.openai.schema import Metric

METRICS = get_args(Metric)
INPUTS = ["{{ sample.output_text }}", "{{ sample.output_json.a }}", "{{ sample.output_json[0] }}", "{{ item.answer }}"]
REFERENCES = ["{{ item.answer }}", "", "the cat", "{{ item.deep.b[1] }}", "{{ sample.choices }}"]
HACKS = ["{{ item.answer }}", "{{item.answer}}", "NaN", "1e999", '{"a": 1e999}', '{"a": "{{ item.answer }}"}', "\ud800"]
HACKS += ["the cat sat", '{"a": "the cat"}', '["the cat"]', "the cat " * 3000, "x" * 70_000, "[" * 5000, "\u0000"]

value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
output = st.sampled_from(HACKS) | st.text(max_size=40) | value.map(json.dumps)
item = st.fixed_dictionaries({"answer": value | st.sampled_from(["the cat sat", ""])}, optional={"deep": value})
said = st.sampled_from(["0.5", '{"result": 2}', '{"result": NaN}', '{"result": -1}', "", "1e999"]) | st.text(max_size=9)
checks = st.builds(
    dict,
    type=st.just("string_check"),
    input=st.sampled_from(INPUTS),
    reference=st.sampled_from(REFERENCES),
    operation=st.sampled_from(["eq", "ne", "like", "ilike"]),
)
similar = st.builds(
    dict,
    type=st.just("text_similarity"),
    input=st.sampled_from(INPUTS),
    reference=st.sampled_from(REFERENCES),
    evaluation_metric=st.sampled_from(METRICS),
)
judged = st.builds(
    dict,
    type=st.just("score_model"),
    model=st.just("m"),
    input=st.sampled_from(INPUTS).map(lambda text: [{"role": "user", "content": text}]),
)
single = checks | similar | judged
FORMULAS = ["a", "a * b", "1 - a", "a / b", "a ^ (1 / b)", "log(a)", "exp(b) - 1", "min(1, max(a, b))", "(a + b) / 2"]
several = st.builds(
    lambda a, b, formula: {"type": "multi", "graders": {"a": a, "b": b}, "calculate_output": formula},
    single,
    single,
    st.sampled_from(FORMULAS),
)


class Says:
    """A judge that says one thing."""

    def __init__(self, content: str):
        self.content = content

    def ask(self, requests):
        return [Reply(self.content, model="m") for _ in requests]


@contextmanager
def unchanged(*values):
    before = [repr(value) for value in values]
    yield
    assert [repr(value) for value in values] == before


def backwards(value):
    """The same value with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: backwards(inner) for key, inner in reversed(value.items())}
    return [backwards(inner) for inner in value] if isinstance(value, list) else value


def check(spec: dict, text: str, row: dict, content: str) -> None:
    judge, sample = Says(content), {"output_text": text}
    with unchanged(spec, sample, row):
        grade = make_openai_grader(parse_spec(spec, "g.json"), judge=judge)(sample, row)
    assert math.isfinite(grade.reward) and grade.seconds >= 0
    assert all(0 <= score <= 1 for score in grade.sub_rewards.values())
    if spec["type"] != "multi":
        assert 0 <= grade.reward <= 1 and not (grade.failures and grade.reward)
    again = make_openai_grader(parse_spec(backwards(spec), "g.json"), judge=judge)(sample, backwards(row))
    assert (grade.reward, grade.sub_rewards, grade.failures) == (again.reward, again.sub_rewards, again.failures)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(single | several, output, item, said)
def test_any_grader_on_any_sample(spec, text, row, content):
    check(spec, text, row, content)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=SLOW)
@given(single | several, output, item, said)
def test_any_grader_on_many_samples(spec, text, row, content):
    check(spec, text, row, content)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("hack", HACKS)
def test_no_hack_is_worth_the_answer(metric, hack):
    spec = {"type": "text_similarity", "input": "{{ sample.output_text }}", "evaluation_metric": metric}
    grade = make_openai_grader(parse_spec({**spec, "reference": "{{ item.answer }}"}, "g.json"))
    item = {"answer": "a dog ran to the green hills at noon"}
    assert grade({"output_text": hack}, item).reward < 0.5 < grade({"output_text": item["answer"]}, item).reward
