"""What the published rewards pay by mistake (executed: Visual-RFT at 9486633, and VLM-R1), and what ours pays.

A row: the answer, its question, the published rewards of it, and our sub-rewards with the failure code.
"""

import math

import pytest

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.boxes import ScoredBox
from tasks.graders.frame import Failure
from tasks.graders.parse import format_answer
from tasks.graders.published import (
    Labelled,
    published_confidence,
    published_equation_6,
    published_format,
    published_grounding,
    published_iou,
    published_label,
    published_map,
    published_od_length,
)
from tasks.params import load_params

GOLD, SECOND = (100.0, 100.0, 300.0, 300.0), (600.0, 600.0, 900.0, 900.0)
SHARES = (300, 400, 500, 700)  # disjoint from GOLD, with its number 300
DISJOINT, JUNK = (310, 410, 510, 710), (500, 0, 520, 20)
iou, sure, form = published_iou, published_confidence, published_format
label, box = published_label, published_grounding
grade = make_grader(load_params().reward)


def detect(*gold) -> Question:
    return Question("r", "r.png", "detection", "seven", gold)


def classify(name: str) -> Question:
    return Question("r", "r.png", "classification", "", label=name)


REFER = Question("r", "r.png", "grounding", "the largest digit", (GOLD,))


def answer(content: str) -> str:
    return f"<think>seven</think><answer>{content}</answer>"


def reply(*scored) -> str:
    return format_answer([b for b, _ in scored], [c for _, c in scored], "seven")


def brier(*terms: float) -> float:
    return (1 + sum(terms) / len(terms)) / 2


GOLD_AT = "[{{'Position': [100, 100, 300, 300], 'Confidence': {}}}]"
DETECTION = {
    "a disjoint box that shares a number": (
        reply((SHARES, 0.8)), detect(GOLD), {iou: 1}, (0, brier(-0.64), 1), Failure.NO_MATCH),
    "newline in the answer": (
        answer("\n[\n{'Position': [100, 100, 300, 300],\n 'Confidence': 1.0}\n]\n"), detect(GOLD),
        {iou: 0, sure: 0}, (1, 1, 1), None),
    "a disjoint box at confidence 0": (
        reply((DISJOINT, 0.0)), detect(GOLD), {iou: 0, sure: 1}, (0, 0.5, 1), Failure.NO_MATCH),
    "a disjoint box at confidence -100": (
        answer("[{'Position': [310, 410, 510, 710], 'Confidence': -100}]"), detect(GOLD), {sure: 1}, (0, 0, 0),
        Failure.BAD_CONFIDENCE),
    "a right box and junk at confidence 0": (
        reply((GOLD, 0.9), (JUNK, 0.0)), detect(GOLD), {sure: 0.95}, (0.5, brier(0.99, 0), 1), None),
    "No Objects on a true negative": (reply(), detect(), {iou: 0, sure: 0, form: 1}, (1, 1, 1), None),
    "a hallucination there": (
        reply((GOLD, 0.9)), detect(), {iou: 0, sure: 0, form: 1}, (0, 0, 1), Failure.HALLUCINATED),
    "a hallucination at confidence 0": (reply((GOLD, 0.0)), detect(), {iou: 0}, (0, 0, 1), Failure.HALLUCINATED),
    "[] on a true negative": (answer("[]"), detect(), {iou: 0, sure: 0}, (1, 1, 0), Failure.BAD_FORMAT),
    "[] on an object": (answer("[]"), detect(GOLD), {iou: 0, sure: 0}, (0, 0.5, 0), Failure.OMITTED),
    "a missing key": (
        answer("[{'Position': [100, 100, 300, 300]}]"), detect(GOLD), {sure: 0}, (0, 0, 0), Failure.MISSING_KEY),
    "a bare dict": (answer(GOLD_AT.format(1)[1:-1]), detect(GOLD), {sure: 0}, (0, 0, 0), Failure.BAD_LIST),
    "a truncated second box": (
        answer(GOLD_AT.format(1)[:-1] + ", {'Position': [60"), detect(GOLD, SECOND), {sure: 0}, (0, 0, 0),
        Failure.BAD_LIST),
    "NaN confidence": (
        answer(GOLD_AT.format("NaN")), detect(GOLD), {sure: math.nan}, (0, 0, 0), Failure.BAD_CONFIDENCE),
    "boxes only in the thinking": (
        f"<think>{GOLD_AT.format(1)}</think>", detect(GOLD), {iou: 0}, (0, 0, 0), Failure.NO_ANSWER),
    "an omission is free in eq. 6": (
        reply((GOLD, 1.0)), detect(GOLD, SECOND), {published_equation_6: 1}, (0.5, 0.75, 1), None),
}  # fmt: skip
CLASSIFICATION = {
    "an empty answer": (answer(""), classify("red seven"), {label: 1}, (0, 0), Failure.EMPTY_ANSWER),
    "one letter": (answer("e"), classify("red seven"), {label: 1}, (0, 1), Failure.WRONG_LABEL),
    "a list of all candidates": (
        answer("red seven, blue two"), classify("red seven"), {label: 1}, (0, 1), Failure.WRONG_LABEL),
    "a label that is part of another": (answer("rose"), classify("primrose"), {label: 1}, (0, 1), Failure.WRONG_LABEL),
    "the class only in the thinking": (
        "<think>red seven</think>", classify("red seven"), {label: 1}, (0, 0), Failure.NO_ANSWER),
    "'747 200' for '747-200'": (answer("747 200"), classify("747-200"), {label: 0}, (1, 1), None),
}  # fmt: skip
GROUNDING = {
    "an inverted box": (answer("(300,300),(100,100)"), REFER, {box: 2}, (0, 0), Failure.BAD_BOX),
    # Executed, two boxes scored 34.5; which ones is not on record, and the first two corners are read here.
    "two boxes": (answer("(900,900),(50,50),(0,0),(9,9)"), REFER, {box: 19.0625}, (0, 0), Failure.SEVERAL_BOXES),
    "the whole picture, inverted": (answer("(1000,1000),(0,0)"), REFER, {box: 26}, (0, 0), Failure.BAD_BOX),
    "decimals": (answer("(100.0,100.0),(300.0,300.0)"), REFER, {box: 0}, (1, 1), None),
}  # fmt: skip
ROWS = {**DETECTION, **CLASSIFICATION, **GROUNDING}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_executed_defects(row):
    completion, question, published, sub_rewards, failure = row
    for reward, paid in published.items():
        assert reward(completion, question) == pytest.approx(paid, nan_ok=True), reward.__name__
    got = grade(completion, question)
    assert tuple(got.sub_rewards.values()) == pytest.approx(sub_rewards)
    assert got.failure == failure
    assert 0 <= got.reward <= 1


def test_gold_earns_the_published_rewards_too():
    for gold in ((GOLD,), (GOLD, SECOND)):
        text = reply(*((b, 1.0) for b in gold))
        assert [reward(text, detect(*gold)) for reward in (iou, sure, form, published_equation_6)] == [1] * 4
    assert label(answer("red seven"), classify("Red_Seven")) == 1
    assert box(answer("(100,100),(300,300)"), REFER) == 2


def test_od_length_and_map_of_vlm_r1():
    def labelled(name, place, confidence=1.0):
        return Labelled(name, ScoredBox(place, confidence))

    gold = [labelled("seven", GOLD), labelled("two", SECOND)]
    assert published_map(gold, gold) == published_od_length(gold, gold) == pytest.approx(1)
    unknown = labelled("dragon", JUNK, 1.0)
    assert published_map([*gold, unknown], gold) == pytest.approx(1)  # dropped, where ours refuses the answer
    twins = [labelled("seven", GOLD), labelled("seven", SECOND)]
    assert published_map(twins[:1], twins) == published_od_length(twins[:1], twins) == pytest.approx(51 / 101)
    assert published_od_length([], gold) == 0
    assert (
        grade(answer("[{'Position': [500, 0, 520, 20], 'Confidence': 1, 'Label': 'dragon'}]"), detect(GOLD)).reward == 0
    )
