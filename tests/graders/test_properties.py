"""Every parser and grader on arbitrary text: finite, in range, a typed failure for every zero, fast, order-free.

A few hundred examples here, 20,000 in `make test-all`. One example goes through all parsers and all rubrics.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.grounding import parse_grounding
from tasks.graders.labels import parse_label
from tasks.graders.parse import format_answer, parse_detection
from tasks.params import ClassificationReward, DetectionReward, GroundingReward, Reward
from tests.graders.timing import timed

grade = make_grader(
    Reward(
        detection=DetectionReward(iou=0.7, confidence=0.2, format=0.1, length=0.1, iou_threshold=0.5),
        classification=ClassificationReward(
            label=0.9, choice=0.1, format=0.1, length=0.1, aliases={"B": ["red seven"]}
        ),
        grounding=GroundingReward(iou=0.9, giou=0.3, format=0.1, length=0.1),
    )
)
count = make_grader(Reward(classification=ClassificationReward(label=0.5, count=0.5, format=0.1)))


def answer(content: str) -> str:
    return f"<think>seven</think><answer>{content}</answer>"


number = st.one_of(
    st.integers(-10, 1010).map(str),
    st.floats(0, 1000).map(repr),
    st.sampled_from(["NaN", "1e999", "-0", "5e-324", "0.5", "1", "true", "''", "9" * 400, "\u0663", "+1"]),
)
numbers = st.lists(number, min_size=3, max_size=5)
box_text = numbers.map(lambda xs: "[" + ", ".join(xs) + "]")
corner = st.tuples(number, number).map(lambda xy: f"({xy[0]},{xy[1]})")
entry = st.tuples(box_text, number).map(lambda e: f"{{'Position': {e[0]}, 'Confidence': {e[1]}}}")
tags = ["<think>", "</think>", "<answer>", "</answer>"]
signs = ["No Objects", "red seven", "B", "3", "[", "]", "{", "}", "(", ")", "'", '"', ",", "\n", "-", "_", "\u2011"]
fragment = st.one_of(st.sampled_from(tags + signs), entry, corner, st.text(max_size=20))
content = st.one_of(
    st.lists(entry, max_size=5).map(lambda entries: "[" + ", ".join(entries) + "]"),
    st.lists(corner, max_size=3).map(",".join),
    box_text,
    st.sampled_from(["No Objects", "red seven", "Red_Seven", "B", "(b)", "3", "4", ""]),
    st.text(max_size=30),
)
soup = st.one_of(st.lists(fragment, max_size=30).map("".join), content.map(answer))
sides = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda s: s[0] < s[1])
# A few sides only, so that boxes often meet: a free draw hardly ever matches.
near = st.tuples(st.sampled_from([(0, 90), (0, 100), (10, 100), (500, 600)]), st.sampled_from([(0, 50), (5, 50)]))
box = st.one_of(near, st.tuples(sides, sides)).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def check_parsers(text: str) -> None:
    for parse in (parse_detection, parse_label, parse_grounding):
        parsed = timed(parse, text)
        assert parsed == parse(text)
        assert not (parsed.failure and parsed.well_formed)


def check_grade(text: str, question: Question, grader=grade) -> None:
    got = timed(grader, text, question)
    for value in (got.reward, *got.sub_rewards.values(), *got.confidences):
        assert math.isfinite(value) and 0 <= value <= 1
    assert all(0 <= x <= 1000 for stated in got.boxes for x in stated)
    assert len(got.boxes) == (len(got.confidences) if question.task == "detection" else len(got.boxes[:1]))
    if not got.reward or not all(got.sub_rewards[name] for name in ("format", "length") if name in got.sub_rewards):
        assert got.failure is not None  # a typed code for every zero


def check(text: str, gold: list, one: tuple, label: str) -> None:
    check_parsers(text)
    check_grade(text, Question("r", "", "detection", "seven", tuple(gold)))
    check_grade(text, Question("r", "", "grounding", "the largest", (one,)))
    check_grade(text, Question("r", "", "classification", "", label=label))
    check_grade(text, Question("r", "", "classification", "", label="3"), count)


examples = given(soup, st.lists(box, max_size=3), box, st.sampled_from(["B", "c"]))


@examples
@settings(max_examples=400, deadline=None)
def test_any_text(text, gold, one, label):
    check(text, gold, one, label)


@pytest.mark.slow
@examples
@settings(max_examples=20_000, deadline=None)
def test_any_text_20_000(text, gold, one, label):
    check(text, gold, one, label)


def check_order(scored, gold, data) -> None:
    """Neither the order of the stated boxes nor that of the gold ones matters, bit for bit."""

    def graded(stated, there):
        text = format_answer([b for b, _ in stated], [c for _, c in stated])
        return grade(text, Question("r", "", "detection", "seven", tuple(there)))

    straight = graded(scored, gold)
    shuffled = graded(data.draw(st.permutations(scored)), data.draw(st.permutations(gold)))
    assert (shuffled.reward, shuffled.sub_rewards) == (straight.reward, straight.sub_rewards)


scored_boxes = st.lists(st.tuples(box, st.integers(0, 3).map(lambda n: n / 3)), max_size=8)
orders = given(scored_boxes, st.lists(box, max_size=5), st.data())


@orders
@settings(max_examples=300, deadline=None)
def test_order_does_not_matter(scored, gold, data):
    check_order(scored, gold, data)


@pytest.mark.slow
@orders
@settings(max_examples=20_000, deadline=None)
def test_order_does_not_matter_20_000(scored, gold, data):
    check_order(scored, gold, data)


HOSTILE = [
    "(",
    "[",
    "(1",
    "[1,",
    "1",
    " ",
    ",",
    "(1,1)",
    "(1,1),",
    ")(",
    "9.",
    "-",
    "a",
    "\u2011",
    "'",
    "'a'",
    '"',
    "{",
]
HOSTILE += ["\ufdfa", "\ufdfa, ", "\u0344", "\u0300", "<answer>", "<think>"]  # the first is 18 letters in normal form


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_takes_no_time(unit):
    content = (unit * 65_000)[:65_000]
    for text in (answer(content), content):
        check(text, [(0, 0, 10, 10)], (0, 0, 10, 10), "B")


def test_as_many_boxes_as_are_allowed_take_no_time():
    apart = [(10.0 * n, 0.0, 10.0 * n + 9, 900.0) for n in range(100)]
    nested = [(0.0, 0.0, 500.0 + n, 900.0) for n in range(100)]
    for gold in (apart, nested):
        check_grade(format_answer(gold, [0.5] * 100), Question("r", "", "detection", "seven", tuple(gold)))
