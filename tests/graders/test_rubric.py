"""The grader: what Visual-RFT's rewards paid for by mistake, honesty as the best policy, and arbitrary text."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.frame import Failure
from tasks.graders.parse import format_answer
from tasks.params import DetectionReward, Reward

GOLD = (100, 100, 300, 300)
SECOND = (600, 600, 900, 900)
DISJOINT = (300, 400, 500, 700)  # shares the number 300 with GOLD
JUNK = (500, 0, 520, 20)


def detection_grader(iou: float, confidence: float, format: float):
    rubric = DetectionReward(iou=iou, confidence=confidence, format=format, iou_threshold=0.5)
    return make_grader(Reward(detection=rubric))


grade = detection_grader(1.0, 1.0, 1.0)


def question(*gold) -> Question:
    return Question("r", "r.png", "detection", "seven", gold)


def reply(*scored) -> str:
    """An answer in the form asked for, of (box, confidence)."""
    return format_answer([box for box, _ in scored], [confidence for _, confidence in scored], "seven")


def answer(content: str) -> str:
    return f"<think>seven</think><answer>{content}</answer>"


@pytest.mark.parametrize("gold", [(), (GOLD,), (GOLD, SECOND), (GOLD, GOLD), ((0, 0, 1000, 1000), (0, 0, 1000, 999))])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.1), (0.1, 0.7, 0.3), (0.0, 0.0, 3.0)])
def test_gold_scores_exactly_one_and_no_text_zero(gold, weights):
    grade = detection_grader(*weights)
    best = grade(reply(*((box, 1.0) for box in gold)), question(*gold))
    assert (best.reward, best.failure) == (1.0, None)
    assert grade("", question(*gold)).reward == 0.0


# What the rewards of Visual-RFT made of an answer (executed at its commit 9486633), and what it is honestly worth:
# (iou, confidence, format) and a failure code.
DEFECTS = [
    pytest.param(
        reply((DISJOINT, 0.8)), (GOLD,), (0, (1 - 0.64) / 2, 1), Failure.NO_MATCH, id="shares a number: IoU reward 1"
    ),
    pytest.param(
        answer("\n[\n{'Position': [100, 100, 300, 300],\n 'Confidence': 1.0}\n]\n"),
        (GOLD,),
        (1, 1, 1),
        None,
        id="newline in the answer: 0",
    ),
    pytest.param(reply((DISJOINT, 0.0)), (GOLD,), (0, 0.5, 1), Failure.NO_MATCH, id="disjoint at 0: confidence 1"),
    pytest.param(
        answer("[{'Position': [300, 400, 500, 700], 'Confidence': -100}]"),
        (GOLD,),
        (0, 0, 0),
        Failure.BAD_CONFIDENCE,
        id="disjoint at -100: confidence 1",
    ),
    pytest.param(
        reply((GOLD, 0.9), (JUNK, 0.0)), (GOLD,), (0.5, (1 + 0.99 / 2) / 2, 1), None, id="junk at 0: confidence 0.95"
    ),
    pytest.param(reply(), (), (1, 1, 1), None, id="true negative: 0"),
    pytest.param(reply((GOLD, 0.9)), (), (0, 0, 1), Failure.HALLUCINATED, id="hallucination: 0, as a true negative"),
    pytest.param(reply((GOLD, 0.0)), (), (0, 0, 1), Failure.HALLUCINATED, id="hallucination at confidence 0"),
    pytest.param(answer("[]"), (), (1, 1, 0), Failure.BAD_FORMAT, id="[] on a true negative: 0 in silence"),
    pytest.param(answer("[]"), (GOLD,), (0, 0.5, 0), Failure.OMITTED, id="[] on an object"),
    pytest.param(
        answer("[{'Position': [100, 100, 300, 300]}]"), (GOLD,), (0, 0, 0), Failure.MISSING_KEY, id="missing key"
    ),
    pytest.param(
        answer("{'Position': [100, 100, 300, 300], 'Confidence': 1}"),
        (GOLD,),
        (0, 0, 0),
        Failure.BAD_LIST,
        id="bare dict",
    ),
    pytest.param(
        reply((GOLD, 1.0), (SECOND, 1.0)).split("900")[0],
        (GOLD, SECOND),
        (0, 0, 0),
        Failure.UNCLOSED_ANSWER,
        id="truncated second box, no closing tag",
    ),
    pytest.param(
        answer("[{'Position': [100, 100, 300, 300], 'Confidence': 1}, {'Position': [60"),
        (GOLD, SECOND),
        (0, 0, 0),
        Failure.BAD_LIST,
        id="truncated second box: 0 in silence",
    ),
    pytest.param(
        answer("[{'Position': [100, 100, 300, 300], 'Confidence': NaN}]"),
        (GOLD,),
        (0, 0, 0),
        Failure.BAD_CONFIDENCE,
        id="NaN confidence: NaN",
    ),
    pytest.param(
        "<think>[{'Position': [100, 100, 300, 300], 'Confidence': 1}]</think>",
        (GOLD,),
        (0, 0, 0),
        Failure.NO_ANSWER,
        id="named only in think: 1",
    ),
    pytest.param(
        "<think>[{'Position': [100, 100, 300, 300], 'Confidence': 1}]</think><answer>No Objects</answer>",
        (GOLD,),
        (0, 0.5, 1),
        Failure.OMITTED,
        id="named in think, denied in the answer",
    ),
    pytest.param(
        answer("[{'Position': [300, 100, 100, 300], 'Confidence': 1}]"),
        (GOLD,),
        (0, 0, 0),
        Failure.BAD_BOX,
        id="inverted box: 2",
    ),
    pytest.param(
        answer("[{'Position': [100.0, 100.0, 300.0, 300.0], 'Confidence': 1.0}]"),
        (GOLD,),
        (1, 1, 1),
        None,
        id="decimals: 0",
    ),
    pytest.param(reply((GOLD, 1.0)), (GOLD, SECOND), (0.5, 0.75, 1), None, id="omission goes free (odLength, eq. 6)"),
    pytest.param(
        answer("[{'Position': [500, 0, 520, 20], 'Confidence': 1, 'Label': 'unknown'}]"),
        (GOLD,),
        (0, 0, 0),
        Failure.BAD_LIST,
        id="prediction with an unknown label is dropped (VLM-R1's mAP)",
    ),
]


@pytest.mark.parametrize(("completion", "gold", "sub_rewards", "failure"), DEFECTS)
def test_executed_defects(completion, gold, sub_rewards, failure):
    got = grade(completion, question(*gold))
    assert got.sub_rewards == pytest.approx(dict(zip(("iou", "confidence", "format"), sub_rewards, strict=True)))
    assert got.reward == pytest.approx(sum(sub_rewards) / 3)
    assert got.failure == failure


def test_weights_are_normalised_and_the_statement_is_kept():
    grade = detection_grader(6.0, 3.0, 1.0)
    got = grade(reply((JUNK, 0.5), (GOLD, 0.9)), question(GOLD))
    confidence = (1 + (1 - 0.1**2 - 0.5**2) / 2) / 2
    assert got.reward == pytest.approx(0.6 * 0.5 + 0.3 * confidence + 0.1 * 1)
    assert (got.boxes, got.confidences) == ((JUNK, GOLD), (0.5, 0.9))


GRID = [0.0, 0.25, 0.5, 0.75, 1.0]
PIECES = [GOLD, SECOND, DISJOINT, JUNK, (100, 100, 300, 299), (100, 100, 101, 101), (0, 0, 1000, 1000)]


@pytest.mark.parametrize("gold", [(), (GOLD,), (GOLD, SECOND)])
def test_no_other_answer_reaches_what_the_gold_one_earns(gold):
    """All answers of up to three boxes (duplicates, omissions, junk, near misses, slivers, the whole picture)."""
    honest = sorted((box, 1.0) for box in gold)
    for num in range(4):
        for boxes in itertools.combinations_with_replacement(PIECES, num):
            for confidences in itertools.product(GRID, repeat=num) if num < 3 else [(1.0,) * 3, (1.0, 1.0, 0.0)]:
                scored = list(zip(boxes, confidences, strict=True))
                if sorted(scored) != honest:
                    assert grade(reply(*scored), question(*gold)).reward < 1 - 1e-4, scored


@pytest.mark.parametrize("p", [0.5, 0.75, 1.0])
def test_under_doubt_the_likeliest_box_at_its_probability_is_best(p):
    """The object is at GOLD with probability p, else at SECOND: no answer beats stating GOLD at confidence p."""

    def expected(scored):
        text = reply(*scored)
        return p * grade(text, question(GOLD)).reward + (1 - p) * grade(text, question(SECOND)).reward

    honest = expected([(GOLD, p)])
    for num in range(4):
        for boxes in itertools.combinations_with_replacement([GOLD, SECOND, JUNK], num):
            for confidences in itertools.product(GRID, repeat=num):
                assert expected(zip(boxes, confidences, strict=True)) <= honest + 1e-12, (boxes, confidences)
    for c in set(GRID) - {p}:
        assert expected([(GOLD, c)]) < honest


def test_the_right_form_alone_is_worth_far_less_than_an_honest_answer():
    grade = detection_grader(0.6, 0.3, 0.1)
    silence, junk, sure_junk = reply(), reply(*[(JUNK, 0.0)] * 100), reply((JUNK, 1.0))
    rewards = [grade(text, question(GOLD)).reward for text in (reply((GOLD, 1.0)), silence, junk, sure_junk)]
    assert rewards == pytest.approx([1, 0.3 / 2 + 0.1, 0.3 / 2 + 0.1, 0.1])


number = st.one_of(
    st.integers(-10, 1010).map(str),
    st.floats(0, 1000).map(repr),
    st.sampled_from(["NaN", "1e999", "-0", "5e-324", "0.5", "1", "true", "''", "9" * 400]),
)
box_text = st.lists(number, min_size=3, max_size=5).map(lambda xs: "[" + ", ".join(xs) + "]")
entry = st.tuples(box_text, number).map(lambda e: f"{{'Position': {e[0]}, 'Confidence': {e[1]}}}")
fragment = st.one_of(
    st.sampled_from(
        ["<think>", "</think>", "<answer>", "</answer>", "No Objects", "[", "]", "{", "}", "'", '"', ",", "\n"]
    ),
    entry,
    st.text(max_size=20),
)
soup = st.one_of(
    st.lists(fragment, max_size=30).map("".join),
    st.lists(entry, max_size=5).map(lambda entries: answer("[" + ", ".join(entries) + "]")),
)
sides = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda s: s[0] < s[1])
# A few sides only, so that boxes often meet: a free draw hardly ever matches.
near = st.tuples(st.sampled_from([(0, 90), (0, 100), (10, 100), (500, 600)]), st.sampled_from([(0, 50), (5, 50)]))
box = st.one_of(near, st.tuples(sides, sides)).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def check_text(text, gold):
    got = grade(text, question(*gold))
    for value in (got.reward, *got.sub_rewards.values(), *got.confidences):
        assert math.isfinite(value) and 0 <= value <= 1
    assert all(0 <= x <= 1000 for stated in got.boxes for x in stated)
    assert len(got.boxes) == len(got.confidences)
    assert got.failure is not None or got.sub_rewards["format"] == 1


@given(soup, st.lists(box, max_size=3))
@settings(max_examples=500, deadline=None)
def test_any_text_is_graded_within_range(text, gold):
    check_text(text, gold)


@pytest.mark.slow
@given(soup, st.lists(box, max_size=3))
@settings(max_examples=20_000, deadline=None)
def test_any_text_is_graded_within_range_20_000(text, gold):
    check_text(text, gold)


@given(
    st.lists(st.tuples(box, st.integers(0, 3).map(lambda n: n / 3)), max_size=8), st.lists(box, max_size=5), st.data()
)
@settings(max_examples=300, deadline=None)
def test_order_does_not_matter(scored, gold, data):
    straight = grade(reply(*scored), question(*gold))
    shuffled = grade(reply(*data.draw(st.permutations(scored))), question(*data.draw(st.permutations(gold))))
    assert (shuffled.reward, shuffled.sub_rewards) == (straight.reward, straight.sub_rewards)
