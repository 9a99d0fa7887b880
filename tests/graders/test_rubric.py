"""The detection rubric: honesty as the best policy, and arbitrary text."""

import itertools
from dataclasses import replace

import pytest

from tasks.data.records import Question
from tasks.graders import make_grader
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


def test_weights_are_normalised_and_the_statement_is_kept():
    grade = detection_grader(6.0, 3.0, 1.0)
    got = grade(reply((JUNK, 0.5), (GOLD, 0.9)), question(GOLD))
    confidence = (1 + (1 - 0.1**2 - 0.5**2) / 2) / 2
    assert got.reward == pytest.approx(0.6 * 0.5 + 0.3 * confidence + 0.1 * 1)
    assert (got.boxes, got.confidences) == ((JUNK, GOLD), (0.5, 0.9))


@pytest.mark.parametrize("gold", [(), (GOLD,)])
def test_boxes_on_a_crowd_earn_and_cost_nothing(gold):
    asked = replace(question(*gold), ignore=(SECOND,))
    inside = [((610 + n, 610, 700, 700), 1.0) for n in range(5)]
    for scored in ([], [(GOLD, 0.9)], [(JUNK, 0.9)], [(GOLD, 1.0), (JUNK, 0.2)]):
        alone, beside = grade(reply(*scored), asked), grade(reply(*inside, *scored), asked)
        assert beside.reward == alone.reward
        assert beside.failure == alone.failure
    assert grade(reply(*inside), question(*gold)).reward < grade(reply(), question(*gold)).reward  # without the crowd


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
