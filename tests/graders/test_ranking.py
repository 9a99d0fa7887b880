"""Rankings: the gold, the empty and the hacked answer; the scale of OpenAI's announced task."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.frame import Failure
from tasks.graders.target import targets
from tasks.params import RankingReward, Reward

GENES = ("ARX", "BDN", "CLK", "DMX", "EPO", "FGN", "GLT", "HBX", "IRF", "KCN", "LMN", "MYB")
ALIASES = {"CLK": ["clock homolog", "CLK-1"]}


def grader(**changes):
    return make_grader(Reward(ranking=RankingReward(**{"answer": 1.0, "format": 0.0, "aliases": ALIASES, **changes})))


grade = grader()


def ask(gold: str) -> Question:
    return Question("r", None, "ranking", "Which gene is it?", label=gold, thoughts=("cough: ARX CLK",))


def answer(content: str) -> str:
    return f"<think>cough: ARX CLK</think><answer>{content}</answer>"


@pytest.mark.parametrize(("rank", "reward"), list(enumerate([1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1], start=1)))
def test_the_reward_falls_with_the_rank_of_the_right_name(rank, reward):
    others = [gene for gene in GENES if gene != "CLK"]
    got = grade(answer(", ".join([*others[: rank - 1], "CLK", *others[rank - 1 : 8]])), ask("CLK"))
    assert (got.reward, got.rank, got.failure) == (reward, rank, None)


@pytest.mark.parametrize(
    ("content", "reward", "rank", "failure"),
    [
        ("", 0, None, Failure.EMPTY_ANSWER),
        (", ,; ", 0, None, Failure.EMPTY_ANSWER),
        ("ARX, BDN", 0, None, Failure.NOT_RANKED),
        pytest.param(", ".join(GENES), 0, None, Failure.TOO_MANY_NAMES, id="all candidates"),
        pytest.param("ARX, " * 9 + "CLK", 0.7, 2, None, id="a duplicate counts once, at its first place"),
        pytest.param("CLK, " * 10 + "CLK", 0, None, Failure.TOO_MANY_NAMES, id="duplicates do not hide a long list"),
        pytest.param("CLK, ARX, CLK", 1, 1, None, id="twice"),
        pytest.param("ARX; clk\nBDN", 0.7, 2, None, id="other separators and case"),
        pytest.param("1. ARX\n2. Clock Homolog", 0.7, 2, None, id="numbered, by a synonym"),
        pytest.param("clk 1, CLK", 1, 1, None, id="two names of one gene are one"),
        pytest.param("ARX BDN CLK", 0, None, Failure.NOT_RANKED, id="all in one name"),
        pytest.param("CL", 0, None, Failure.NOT_RANKED, id="a part of a name"),
        pytest.param("it is CLK", 0, None, Failure.NOT_RANKED, id="a sentence"),
        pytest.param("x" * 60_000, 0, None, Failure.NOT_RANKED, id="long"),
    ],
)
def test_answers(content, reward, rank, failure):
    got = grade(answer(content), ask("CLK"))
    assert (got.reward, got.rank, got.failure) == (reward, rank, failure)


def test_the_right_name_only_in_the_thinking_is_no_answer():
    assert grade("<think>CLK</think>", ask("CLK")).failure == Failure.NO_ANSWER


def test_the_gold_answer_may_go_on_and_only_its_first_name_is_right():
    question = ask("CLK, ARX, BDN")
    (target,) = targets(question)
    assert target == answer("CLK, ARX, BDN")
    assert grade(target, question).reward == 1
    assert grade(answer("ARX, CLK"), question).reward == 0.7


def test_the_scale_is_configurable_and_must_not_rise():
    steep = grader(scores=[1.0, 0.2], later=0.0, max_names=3)
    assert [steep(answer(text), ask("CLK")).reward for text in ("CLK", "ARX,CLK", "ARX,BDN,CLK")] == [1, 0.2, 0]
    with pytest.raises(ValueError, match=r"must not rise with the rank: \[0.5, 0.7, 0.1\]"):
        RankingReward(answer=1.0, format=0.0, scores=[0.5, 0.7])


names = st.lists(st.sampled_from([*GENES, "clk-1", "", "1. ", "\u2011", ",", "x" * 300]), max_size=14)


@given(names.map(", ".join), st.sampled_from(GENES))
@settings(max_examples=300, deadline=None)
def test_any_list_is_worth_no_more_than_the_rank_of_its_best_place(content, gold):
    got = grade(answer(content), ask(gold))
    assert math.isfinite(got.reward) and 0 <= got.reward <= 1
    assert (got.reward > 0) == (got.rank is not None) and (got.rank is None or got.rank <= 10)
    assert got.reward or got.failure
    if got.rank:
        assert grade(answer(gold), ask(gold)).reward >= got.reward
