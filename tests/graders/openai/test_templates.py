"""Templates and the namespace `sample`: what is inserted, what is missing, and that nothing inserted is read again."""

import pytest

from tasks.graders.openai.failures import Failure, GradeError
from tasks.graders.openai.sample import make_context
from tasks.graders.openai.templates import render

CALL = {"id": "c", "type": "function", "function": {"name": "get_acceptors", "arguments": '{"smiles": "CC"}'}}
ITEM = {"x": "gold", "n": 1.0, "i": 3, "none": None, "yes": True, "deep": {"b": [{"c": "d"}], "a b": "e"}, "é": "ü"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.x }}", "gold"),
        ("{{item.x}} and {{  sample.output_text\n}}", "gold and hello"),
        ("{{ item.n }} {{ item.i }} {{ item.none }} {{ item.yes }}", "1.0 3 null true"),
        ("{{ item.deep.b[0].c }}", "d"),
        ("""{{ item.deep["a b"] }} {{ item['x'] }} {{ item.é }}""", "e gold ü"),
        ("{{ item.deep }}", '{"a b": "e", "b": [{"c": "d"}]}'),
        ('{"a": {"b": "{{ item.x }}"}}', '{"a": {"b": "gold"}}'),
        ("{{ item.x", "{{ item.x"),
        ("no variable", "no variable"),
        ("{{ sample.choices[0].message.content }}", "hello"),
    ],
)
def test_what_is_inserted(template, text):
    assert render(template, make_context({"output_text": "hello"}, ITEM)) == text


@pytest.mark.parametrize("hack", ["{{ item.x }}", "{{item.x}}", "{{ '{{ item.x }}' }}", "\\1 \\g<0> {0} %s {item.x}"])
def test_what_a_model_writes_is_never_read_as_a_template(hack):
    context = make_context({"output_text": hack}, ITEM)
    assert render("<{{ sample.output_text }}>", context) == f"<{hack}>"
    assert render("{{ item.x }}{{ sample.output_text }} item.x }}", context) == f"gold{hack} item.x }}}}"


@pytest.mark.parametrize(
    ("template", "failure", "names"),
    [
        ("{{ item.y }}", Failure.INVALID_VARIABLE, ["item.y", "'y'"]),
        ("{{ item.deep.b[1].c }}", Failure.INVALID_VARIABLE, ["item.deep.b holds no 1"]),
        ("{{ item.x.upper }}", Failure.INVALID_VARIABLE, ["item.x holds no 'upper'"]),
        ("{{ item.deep[0] }}", Failure.INVALID_VARIABLE, ["item.deep holds no 0"]),
        ("{{ item.__class__ }}", Failure.INVALID_VARIABLE, ["__class__"]),
        ("{{ sample.output_tools[0].function.name }}", Failure.INVALID_VARIABLE, ["sample.output_tools holds no 0"]),
        ("{{ sample.output_json.a }}", Failure.SAMPLE_PARSE, ["output_text is no JSON"]),
    ],
)
def test_what_is_missing_is_named(template, failure, names):
    with pytest.raises(GradeError) as error:
        render(template, make_context({"output_text": "hello"}, ITEM))
    assert error.value.failure is failure
    assert all(name in str(error.value) for name in names), error.value


@pytest.mark.parametrize(
    ("output", "template", "text"),
    [
        ('{"a": {"b": [1, 2]}}', "{{ sample.output_json.a.b[1] }}", "2"),
        ("0.9", "{{ sample.output_json }}", "0.9"),
        ('{"b": 1, "a": 2}', "{{ sample.output_json }}", '{"a": 2, "b": 1}'),
        ("[" * 50 + "]" * 50, "{{ sample.output_json }}", "[" * 50 + "]" * 50),
        ('{"a": "\\ud800"}', "{{ sample.output_json.a }}", "\ud800"),
    ],
)
def test_output_json(output, template, text):
    assert render(template, make_context({"output_text": output}, {})) == text


@pytest.mark.parametrize(
    "output", ["", "{", "NaN", '{"a": Infinity}', '{"a": 1e999}', "[" * 60_000, "[" * 70 + "]" * 70, "9" * 5000, "'a'"]
)
def test_what_is_no_json(output):
    with pytest.raises(GradeError) as error:
        render("{{ sample.output_json }}", make_context({"output_text": output}, {}))
    assert error.value.failure is Failure.SAMPLE_PARSE


def test_a_sample_of_choices():
    context = make_context({"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]}, {})
    assert context.sample["output_text"] == ""
    assert render("{{ sample.output_tools[0].function.name }}", context) == "get_acceptors"


def test_a_huge_output_is_bounded():
    for sample in ({"output_text": "x" * 65_537}, {"output_text": "", "output_tools": [{"arguments": "x" * 65_537}]}):
        with pytest.raises(GradeError) as error:
            make_context(sample, {})
        assert error.value.failure is Failure.OTHER


@pytest.mark.parametrize(
    ("sample", "names"),
    [
        ({}, ["output_text", "choices"]),
        ({"output_text": 1}, ["output_text is 1"]),
        ({"choices": []}, ["sample.choices"]),
        ({"choices": [{"text": "x"}]}, ["sample.choices"]),
        ({"choices": [{"message": {}}]}, ["output_text"]),
        ({"text": "x"}, ["unknown text"]),
    ],
)
def test_a_sample_that_is_none_is_the_callers_error(sample, names):
    with pytest.raises(ValueError) as error:
        make_context(sample, {})
    assert all(name in str(error.value) for name in names), error.value
