"""Whole graders: gold, empty and hacked answers, failures by kind, python in the real sandbox."""

import threading

import pytest

from tasks.graders.openai import Failure, Judge, make_batch_grader, make_openai_grader, parse_spec
from tasks.graders.sandbox import Limits, Sandbox, SandboxError
from tests.graders.openai.endpoint import graded, serving
from tests.graders.openai.published import (
    COMPLIANCE,
    FUZZY_PYTHON,
    MULTI,
    PYTHON,
    REFERENCE_PYTHON,
    SCORE_MODEL,
    STRING_CHECK,
    TOOLS,
)


def grade_with(spec: dict, sample, item: dict, **resources):
    sample = {"output_text": sample} if isinstance(sample, str) else sample
    return make_openai_grader(parse_spec(spec, "g.json"), **resources)(sample, item)


@pytest.mark.parametrize(
    ("operation", "text", "label", "reward"),
    [
        ("eq", "Paris", "Paris", 1),
        ("eq", "paris", "Paris", 0),
        ("eq", "", "Paris", 0),
        ("eq", "Paris ", "Paris", 0),
        ("ne", "Rome", "Paris", 1),
        ("neq", "Paris", "Paris", 0),
        ("like", "It is Paris.", "Paris", 1),
        ("like", "It is PARIS.", "Paris", 0),
        ("ilike", "It is PARIS.", "Paris", 1),
        ("ilike", "STRASSE", "straße", 1),
        ("like", "", "Paris", 0),
        ("like", "Paris", "", 0),  # an empty reference is in no text
        ("eq", "{{ item.label }}", "Paris", 0),  # the template as the answer
        ("like", "{{ item.label }}", "Paris", 0),
    ],
)
def test_string_check(operation, text, label, reward):
    grade = grade_with({**STRING_CHECK, "operation": operation}, text, {"label": label})
    assert (grade.reward, grade.sub_rewards, grade.failures) == (reward, {}, {})


def test_an_empty_answer_where_the_reference_stands_earns_nothing():
    spec = {**STRING_CHECK, "operation": "like", "input": "{{item.label}}", "reference": "{{sample.output_text}}"}
    assert grade_with(spec, "", {"label": "Paris"}).reward == 0
    assert grade_with(spec, "Paris", {"label": "Paris"}).reward == 1


PERSON = {"name": "John Doe", "email": "john.doe@gmail.com"}


@pytest.mark.parametrize(
    ("text", "reward", "sub_rewards", "failures"),
    [
        ('{"name": "John Doe", "email": "john.doe@gmail.com"}', 1.0, (1.0, 1.0), {}),
        ('{"email": "john.doe@gmail.com", "name": "Jon Doe"}', 0.9667, (0.9333, 1.0), {}),
        ('{"name": "John Doe", "email": "{{ item.email }}"}', 0.5, (1.0, 0.0), {}),
        ('{"name": 1, "name": "John Doe", "email": "j"}', 0.5, (1.0, 0.0), {}),  # what models write may say it twice
        ('{"name": "John Doe"}', 0.5, (1.0, 0.0), {Failure.INVALID_VARIABLE: 1}),
        ('{"name": {}, "email": null}', 0.0, (0.0, 0.0), {}),
        ("[]", 0.0, (0.0, 0.0), {Failure.INVALID_VARIABLE: 2}),
        ("", 0.0, (0.0, 0.0), {Failure.SAMPLE_PARSE: 2}),
        ('{"name": 1e999}', 0.0, (0.0, 0.0), {Failure.SAMPLE_PARSE: 2}),
        ("x" * 70_000, 0.0, (0.0, 0.0), {Failure.OTHER: 1}),
    ],
)
def test_the_guides_multi_grader(text, reward, sub_rewards, failures):
    grade = grade_with(MULTI, text, PERSON)
    assert grade.reward == pytest.approx(reward, abs=1e-4)
    assert tuple(grade.sub_rewards.values()) == pytest.approx(sub_rewards, abs=1e-4)
    assert grade.failures == failures and set(grade.details) == set(failures)


def test_the_guides_tool_grader():
    def calling(arguments: str) -> dict:
        call = {"id": "1", "type": "function", "function": {"name": "get_acceptors", "arguments": arguments}}
        return {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}

    assert grade_with(TOOLS, calling('{"smiles": "CC"}'), {"smiles": "CC"}).reward == 1
    assert grade_with(TOOLS, calling('{"smiles":"CC"}'), {"smiles": "CC"}).reward == 0.5
    none = grade_with(TOOLS, "get_acceptors", {"smiles": "CC"})
    assert (none.reward, none.failures) == (0, {Failure.INVALID_VARIABLE: 2})


def multi(formula: str, **graders) -> dict:
    return {"type": "multi", "graders": graders, "calculate_output": formula}


RIGHT, MISSING = STRING_CHECK, {**STRING_CHECK, "input": "{{ sample.output_json.answer }}"}


@pytest.mark.parametrize(
    ("formula", "reward"),
    [
        ("right / (right - right)", None),
        ("log(other)", None),
        ("exp(1000 * right)", None),
        ("right * 5 - 7", -2),
        ("max(right, other)", 1),
    ],
)
def test_a_formula_without_a_value_is_counted(formula, reward):
    wrong = {**STRING_CHECK, "operation": "ne"}
    grade = grade_with(multi(formula, right=RIGHT, other=wrong), "gold", {"label": "gold"})
    assert grade.reward == (reward or 0.0) and grade.sub_rewards == {"right": 1, "other": 0}
    assert grade.failures == ({Failure.FORMULA_PARSE: 1} if reward is None else {})


@pytest.mark.parametrize(
    ("formula", "reward"),
    [
        ("0.5 * right + 0.5 * fails", 0.5),  # documented: a grader that fails grades 0
        ("right * (1 - fails)", 0.0),  # but no formula pays for a failure
        ("abs(right - fails)", 0.0),
        ("max(1 - fails, 1 - too)", 0.0),  # not even for two at once
        ("right + 0 * fails", 1.0),
    ],
)
def test_a_failure_never_pays(formula, reward):
    grade = grade_with(multi(formula, right=RIGHT, fails=MISSING, too=MISSING), "gold", {"label": "gold"})
    assert (grade.reward, grade.failures) == (reward, {Failure.SAMPLE_PARSE: 2})


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(seconds=3, memory_mb=1024)) as made:
        yield made


def test_published_python_graders_in_the_sandbox(sandbox):
    assert grade_with(PYTHON, "", {}, sandbox=sandbox).reward == 1.0
    assert grade_with(REFERENCE_PYTHON, "gold", {"label": "gold"}, sandbox=sandbox).reward == 1.0
    assert grade_with(REFERENCE_PYTHON, "", {"label": "gold"}, sandbox=sandbox).reward == 0.0
    item = {"reference_answer": "fuzzy wuzzy had no hair"}
    fuzzy = grade_with(FUZZY_PYTHON, "fuzzy wuzzy was a bear", item, sandbox=sandbox)
    assert fuzzy.reward == pytest.approx(0.7556, abs=1e-4) and fuzzy.seconds > 0


def python(body: str) -> dict:
    return {"type": "python", "source": f"def grade(sample, item):\n    {body}"}


@pytest.mark.parametrize(
    ("body", "reward", "says"),
    [
        ("return len(sample['output_text']) / item['n']", 0.75, None),
        ("return sample['output_json']['n']", 4.0, None),  # as documented: any finite float
        ("return sample['choices'][0]['message']['content'] == sample['output_text']", 1.0, None),
        ("return -2", -2.0, None),
        ("import numpy; return numpy.float32(0.5)", 0.5, None),
        ("import numpy; return numpy.bool_(True)", 1.0, None),  # as True is
        ("import decimal; return decimal.Decimal('0.25')", 0.25, None),
        ("return sample['output_tools'][0]", 0.0, "IndexError"),
        ("raise ValueError('no')", 0.0, "no"),
        ("return float('nan')", 0.0, ""),
        ("return float('inf')", 0.0, ""),
        ("return 10 ** 400", 0.0, "no number"),
        ("return 10 ** 5000", 0.0, ""),
        ("return '1.0'", 0.0, "no number"),
        ("return None", 0.0, "no number"),
        ("return [1.0]", 0.0, "no number"),
        ("import os; os._exit(0)", 0.0, ""),
        ("raise SystemExit(0)", 0.0, ""),
        ("while True: pass", 0.0, "timeout"),
        ("return 'x' * 10 ** 10", 0.0, ""),
        ("return open('/etc/hostname').read()", 0.0, ""),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", 0.0, ""),
    ],
)
def test_python_grades_or_is_counted(sandbox, body, reward, says):
    grade = grade_with(python(body), '{"n":4}', {"n": 28 / 3}, sandbox=sandbox)
    assert grade.reward == pytest.approx(reward)
    assert grade.failures == ({} if says is None else {Failure.PYTHON_GRADER_RUNTIME: 1})
    assert says is None or says in grade.details[Failure.PYTHON_GRADER_RUNTIME]


@pytest.mark.parametrize("text", ["hello", "\ud800", "[" * 60_000, "[" * 900 + "]" * 900, "\u0000", "NaN"])
def test_what_is_no_json_is_none_to_python(sandbox, text):
    assert grade_with(python("return float(sample['output_json'] is None)"), text, {}, sandbox=sandbox).reward == 1


def test_a_broken_sandbox_is_counted_not_raised():
    class Broken:
        def map(self, calls):
            return [SandboxError("the worker is gone") for _ in calls]

    grade = grade_with(PYTHON, "", {}, sandbox=Broken())
    assert (grade.reward, grade.failures) == (0.0, {Failure.PYTHON_GRADER_SERVER: 1})


def test_a_batch_keeps_its_order_with_unreadable_samples_between(sandbox):
    spec = parse_spec(multi("a * 10 + b", a=python("return int(sample['output_text'])"), b=RIGHT), "g.json")
    texts = ["1", "x", "2", "9" * 70_000, "3"]
    grades = make_batch_grader(spec, sandbox)([({"output_text": text}, {"label": "2"}) for text in texts])
    assert [grade.reward for grade in grades] == [10.0, 0.0, 21.0, 0.0, 30.0]
    kinds = [{}, {Failure.PYTHON_GRADER_RUNTIME: 1}, {}, {Failure.OTHER: 1}, {}]
    assert [grade.failures for grade in grades] == kinds
    assert make_batch_grader(spec, sandbox)([]) == []


def test_from_several_threads(sandbox):
    grade = make_openai_grader(parse_spec(python("return int(sample['output_text'])"), "g.json"), sandbox)
    got: dict[int, float] = {}
    threads = [
        threading.Thread(target=lambda n=n: got.update({n: grade({"output_text": str(n)}, {}).reward}))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: n for n in range(6)}


def test_the_guides_security_review_with_a_judge_that_dies():
    item = {"compliant": "yes"}
    grades = []
    with serving(lambda request, number: graded(0.5) if number == 1 else (500, {}, b"")) as server:
        for _ in range(2):  # a judge each, so that the second remembers nothing
            with Judge(server.url, attempts=1) as judge:
                grades.append(grade_with(COMPLIANCE, '{"compliant": "yes"}', item, judge=judge))
    alive, dead = grades
    assert (alive.reward, alive.sub_rewards) == (0.75, {"explanation": 0.5, "compliant": 1.0})
    assert (dead.reward, dead.failures) == (0.5, {Failure.MODEL_GRADER_SERVER: 1})


@pytest.mark.parametrize(
    ("spec", "names"), [(PYTHON, "needs a sandbox"), (SCORE_MODEL, "'my_score_model' needs a judge")]
)
def test_what_a_spec_needs_is_asked_for_at_once(spec, names):
    with pytest.raises(ValueError, match=names):
        make_openai_grader(parse_spec(spec, "g.json"))
