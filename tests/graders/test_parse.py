"""The parser: valid, invalid and hostile answers, each with its reason, and the round trip through `format_answer`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.graders.boxes import ScoredBox
from tasks.graders.frame import MAX_CHARACTERS, Failure
from tasks.graders.parse import MAX_BOXES, format_answer, parse_detection
from tests.graders.timing import timed

ENTRY = "{'Position': [1, 2, 3, 4], 'Confidence': 0.5}"
ONE = (ScoredBox((1, 2, 3, 4), 0.5),)


def answer(content: str) -> str:
    return f"<think>x</think><answer>{content}</answer>"


@pytest.mark.parametrize(
    ("completion", "boxes", "well_formed"),
    [
        pytest.param(answer(f"[{ENTRY}]"), ONE, True, id="as documented"),
        pytest.param(answer("No Objects"), (), True, id="none, as documented"),
        pytest.param("\n " + answer(f"\n[{ENTRY}]\n") + "\n", ONE, True, id="newlines around and inside"),
        pytest.param(f"<think>a\nb</think>\n\n<answer>[{ENTRY}]</answer>", ONE, True, id="newlines in and after think"),
        pytest.param(answer('[{"Position":[1,2,3,4],"Confidence":0.5}]'), ONE, True, id="double quotes, no spaces"),
        pytest.param(answer("[{'Confidence': 5e-1, \n\t'Position': [1.0, 2.0, 3, 4]}]"), ONE, True, id="keys swapped"),
        pytest.param(answer("[]"), (), False, id="[] is none, in another form"),
        pytest.param(answer("no objects"), (), False, id="none in lower case"),
        pytest.param(f"<answer>[{ENTRY}]</answer>", ONE, False, id="no thinking"),
        pytest.param(f"<answer>[{ENTRY}]</answer><think>x</think>", ONE, False, id="thought after the answer"),
        pytest.param(f"<think>x<answer>[{ENTRY}]</answer>", ONE, False, id="thinking never closed"),
        pytest.param("Sure! " + answer(f"[{ENTRY}]"), ONE, False, id="text before"),
        pytest.param(answer(f"[{ENTRY}]") + " Done.", ONE, False, id="text after"),
        pytest.param(f"<think>x</think> so <answer>[{ENTRY}]</answer>", ONE, False, id="text between"),
        pytest.param("<think>a</think>" + answer(f"[{ENTRY}]"), ONE, False, id="two thoughts"),
        pytest.param(f"<think>[{ENTRY}, {ENTRY}]</think><answer>[{ENTRY}]</answer>", ONE, True, id="boxes in think"),
        pytest.param(
            answer("[{'Position': [0, 0, 1000, 1000], 'Confidence': 1}]"),
            (ScoredBox((0, 0, 1000, 1000), 1),),
            True,
            id="the ends of the ranges are inside",
        ),
    ],
)
def test_readable(completion, boxes, well_formed):
    parsed = parse_detection(completion)
    assert (parsed.boxes, parsed.well_formed, parsed.failure) == (boxes, well_formed, None)


def entry(position: str = "[1, 2, 3, 4]", confidence: str = "0.5") -> str:
    return answer(f"[{{'Position': {position}, 'Confidence': {confidence}}}]")


@pytest.mark.parametrize(
    ("completion", "failure"),
    [
        pytest.param("", Failure.NO_ANSWER, id="empty"),
        pytest.param(f"[{ENTRY}]", Failure.NO_ANSWER, id="no tags"),
        pytest.param(f"<think>[{ENTRY}]</think>", Failure.NO_ANSWER, id="only thought"),
        pytest.param(f"<ANSWER>[{ENTRY}]</ANSWER>", Failure.NO_ANSWER, id="tags are lower case"),
        pytest.param(f"<think>x</think><answer>[{ENTRY}]", Failure.UNCLOSED_ANSWER, id="cut off"),
        pytest.param(f"</answer>[{ENTRY}]<answer>", Failure.UNCLOSED_ANSWER, id="tags reversed"),
        pytest.param(answer("No Objects") + answer(f"[{ENTRY}]"), Failure.SEVERAL_ANSWERS, id="two answers"),
        pytest.param(answer("No Objects") + "</answer>", Failure.SEVERAL_ANSWERS, id="closed twice"),
        pytest.param(answer(f"<answer>[{ENTRY}]</answer>"), Failure.NESTED_TAGS, id="answer in answer"),
        pytest.param(f"<think><answer>[{ENTRY}]</answer></think>", Failure.NESTED_TAGS, id="answer in think"),
        pytest.param(answer(f"<think>x</think>[{ENTRY}]"), Failure.NESTED_TAGS, id="think in answer"),
        pytest.param(answer(""), Failure.BAD_LIST, id="empty answer"),
        pytest.param(answer(ENTRY), Failure.BAD_LIST, id="bare dict"),
        pytest.param(answer(f"[{ENTRY}, {{'Position': [1, 2"), Failure.BAD_LIST, id="truncated second box"),
        pytest.param(answer(f"[{ENTRY},]"), Failure.BAD_LIST, id="trailing comma"),
        pytest.param(answer(f"[{ENTRY}] No Objects"), Failure.BAD_LIST, id="both at once"),
        pytest.param(answer("[[1, 2, 3, 4]]"), Failure.BAD_LIST, id="boxes without keys"),
        pytest.param(answer("null"), Failure.BAD_LIST, id="null"),
        pytest.param(answer("[{'Position\": [1, 2, 3, 4], 'Confidence': 0.5}]"), Failure.BAD_LIST, id="mixed quotes"),
        pytest.param(answer(f"[{ENTRY[:-1]}, 'Label': 'cat'}}]"), Failure.BAD_LIST, id="a key too many"),
        pytest.param(answer(f"[{ENTRY[:-1]}, 'Confidence': 0.9}}]"), Failure.BAD_LIST, id="a key twice"),
        pytest.param(answer("[__import__('os').getcwd()]"), Failure.BAD_LIST, id="code"),
        pytest.param(answer("[" * 5000 + "]" * 5000), Failure.BAD_LIST, id="deep nesting"),
        pytest.param(answer("[{'Position': [1, 2, 3, 4]}]"), Failure.MISSING_KEY, id="no confidence"),
        pytest.param(answer("[{'Confidence': 0.5}]"), Failure.MISSING_KEY, id="no position"),
        pytest.param(answer("[{'bbox': [1, 2, 3, 4], 'Confidence': 0.5}]"), Failure.MISSING_KEY, id="another name"),
        pytest.param(entry("[3, 2, 1, 4]"), Failure.BAD_BOX, id="reversed x"),
        pytest.param(entry("[1, 4, 3, 2]"), Failure.BAD_BOX, id="reversed y"),
        pytest.param(entry("[1, 2, 1, 4]"), Failure.BAD_BOX, id="no width"),
        pytest.param(entry("[-1, 2, 3, 4]"), Failure.BAD_BOX, id="below 0"),
        pytest.param(entry("[1, 2, 3, 1000.5]"), Failure.BAD_BOX, id="above 1000"),
        pytest.param(entry("[1, 2, 3, 1e999]"), Failure.BAD_BOX, id="overflow to infinity"),
        pytest.param(entry("[1, 2, 3, NaN]"), Failure.BAD_BOX, id="NaN"),
        pytest.param(entry("[1, 2, 3]"), Failure.BAD_BOX, id="three numbers"),
        pytest.param(entry("[1, 2, 3, 4, 5]"), Failure.BAD_BOX, id="five numbers"),
        pytest.param(entry("[1, 2, 3, true]"), Failure.BAD_BOX, id="true is no number"),
        pytest.param(entry("'1, 2, 3, 4'"), Failure.BAD_BOX, id="box as text"),
        pytest.param(entry(f"[1, 2, 3, {'9' * 5000}]"), Failure.BAD_BOX, id="more digits than int() takes"),
        pytest.param(entry(confidence="NaN"), Failure.BAD_CONFIDENCE, id="NaN confidence"),
        pytest.param(entry(confidence="-100"), Failure.BAD_CONFIDENCE, id="confidence -100"),
        pytest.param(entry(confidence="1.01"), Failure.BAD_CONFIDENCE, id="confidence above 1"),
        pytest.param(entry(confidence="Infinity"), Failure.BAD_CONFIDENCE, id="infinite confidence"),
        pytest.param(entry(confidence="'0.5'"), Failure.BAD_CONFIDENCE, id="confidence as text"),
        pytest.param(
            answer("[" + ", ".join([ENTRY] * (MAX_BOXES + 1)) + "]"), Failure.TOO_MANY_BOXES, id="a box too many"
        ),
        pytest.param(answer("No Objects").ljust(MAX_CHARACTERS + 1), Failure.TOO_LONG, id="a character too many"),
    ],
)
def test_unreadable(completion, failure):
    parsed = parse_detection(completion)
    assert (parsed.boxes, parsed.well_formed, parsed.failure) == ((), False, failure)


def test_the_caps_themselves_are_allowed():
    assert len(parse_detection(answer("[" + ", ".join([ENTRY] * MAX_BOXES) + "]")).boxes) == MAX_BOXES
    assert parse_detection(answer("No Objects").ljust(MAX_CHARACTERS)).well_formed


@pytest.mark.parametrize(
    "unit",
    ["<answer>", "<think>", "<", "</answer", "'", '"', "'a", "[", "{", " ", "\\", "9", "1,", "{'Position':", "é<"],
)
@pytest.mark.parametrize("framed", [False, True])
def test_hostile_repetition_takes_no_time(unit, framed):
    text = (unit * MAX_CHARACTERS)[: MAX_CHARACTERS - 100]
    assert timed(parse_detection, answer("[" + text) if framed else text).failure is not None


sides = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda s: s[0] < s[1])
boxes = st.tuples(sides, sides).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


@given(st.lists(st.tuples(boxes, st.integers(0, 100)), max_size=MAX_BOXES), st.text(alphabet="ab ,\n<>'\"[{é"))
@settings(max_examples=200, deadline=None)
def test_round_trip(scored, think):
    text = format_answer([box for box, _ in scored], [percent / 100 for _, percent in scored], think)
    parsed = parse_detection(text)
    assert parsed.well_formed
    assert [(b.box, b.confidence) for b in parsed.boxes] == [(box, percent / 100) for box, percent in scored]


def test_format_is_literal():
    assert format_answer([(12, 34, 56, 78), (0.4, 1.6, 9, 10)], [0.93, 1], "seven, three") == (
        "<think>seven, three</think><answer>[{'Position': [12, 34, 56, 78], 'Confidence': 0.93}, "
        "{'Position': [0, 2, 9, 10], 'Confidence': 1.00}]</answer>"
    )
    assert format_answer([], []) == "<think></think><answer>No Objects</answer>"


def test_a_box_thinner_than_a_thousandth_stays_a_box():
    assert "[3, 7, 4, 8]" in format_answer([(3.1, 7.6, 3.3, 7.9)], [1])


@pytest.mark.parametrize(
    ("boxes", "confidences", "think", "message"),
    [
        ([(0, 0, 1001, 5)], [1], "", "0..1000"),
        ([(5, 0, 4.9, 5)], [1], "", "x1 < x2"),
        ([(0, 0, float("nan"), 5)], [1], "", "0..1000"),
        ([(0, 0, 5, 5)], [1.2], "", "bad_confidence"),
        ([(0, 0, 5, 5)], [float("nan")], "", "bad_list"),
        ([(0, 0, 5, 5)], [1], "I close my </think>", "bad_format"),
        ([(0, 0, 5, 5)], [1], "<answer>", "nested_tags"),
        ([(0, 0, 5, 5)] * (MAX_BOXES + 1), [1] * (MAX_BOXES + 1), "", "too_many_boxes"),
        ([(0, 0, 5, 5)], [], "", "shorter"),
    ],
)
def test_a_target_that_could_not_be_read_is_refused(boxes, confidences, think, message):
    with pytest.raises(ValueError, match=message):
        format_answer(boxes, confidences, think)
