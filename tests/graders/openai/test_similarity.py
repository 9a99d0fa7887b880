"""Text metrics: the gold text, the empty one, the padded one, and each value as its library gives it."""

import random
from typing import get_args

import pytest
import rouge_score.rouge_scorer

from tasks.graders.openai.failures import GradeError
from tasks.graders.openai.schema import Metric
from tasks.graders.openai.similarity import similarity

METRICS = get_args(Metric)
GOLD = "the cat sat on the mat today"
FUZZY = ("fuzzy wuzzy was a bear", "fuzzy wuzzy had no hair")  # the texts of the guide's working example


@pytest.mark.parametrize("metric", METRICS)
def test_gold_empty_and_hacked(metric):
    gold = similarity(metric, GOLD, GOLD)
    assert gold == pytest.approx(0.9985 if metric == "meteor" else 1.0, abs=1e-4) and gold <= 1.0
    assert similarity(metric, "", GOLD) == similarity(metric, GOLD, "") == similarity(metric, " ", "") == 0.0
    assert similarity(metric, "a dog", GOLD) < 0.3
    assert similarity(metric, f"{GOLD} " + "padding beside it " * 40, GOLD) < 0.5 or metric == "meteor"


def test_meteor_weighs_recall_nine_to_one_so_padding_costs_it_little():
    assert 0.3 < similarity("meteor", f"{GOLD} " + "padding beside it " * 4, GOLD) < 0.9


@pytest.mark.parametrize(
    ("metric", "texts", "value"),
    [
        ("fuzzy_match", FUZZY, 0.7556),  # what the guide's WRatio gives too
        ("rouge_1", FUZZY, 0.4),  # 2 words of 5 and 5
        ("rouge_2", FUZZY, 0.25),
        ("rouge_l", ("a b c d", "a c d e f g"), 0.6),  # a c d: precision 3/4, recall 3/6
        ("gleu", ("a b c", "a b d"), 0.5),  # 3 of 6 n-grams
        ("meteor", ("cats", "cat"), 0.5),  # by the stem; one word is one chunk of one match
        ("meteor", ("car", "automobile"), 0.0),  # synonyms only: needs WordNet, which is left out
        ("bleu", ("the cat sat on the mat", "the cat sat on a mat"), 0.5373),  # sqrt-sqrt of 5/6 x 3/5 x 2/4 x 1/3
    ],
)
def test_values_by_hand(metric, texts, value):
    assert similarity(metric, *texts) == pytest.approx(value, abs=1e-4)


def test_rouge_l_is_rouge_scores():
    numbers, scorer = random.Random(0), rouge_score.rouge_scorer.RougeScorer(["rougeL"])
    for _ in range(200):
        text, reference = (" ".join(numbers.choices("abcdeFG-\u00e9", k=numbers.randint(0, 30))) for _ in range(2))
        assert similarity("rouge_l", text, reference) == pytest.approx(
            scorer.score(reference, text)["rougeL"].fmeasure, abs=1e-12
        )


def test_a_longer_text_than_graders_read_is_a_failure():
    with pytest.raises(GradeError, match="65537 characters"):
        similarity("rouge_l", "x" * 65_537, "x")
