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
from tests.graders.timing import timed

GENES = ("ARX", "BDN", "CLK", "DMX", "EPO", "FGN", "GLT", "HBX", "IRF", "KCN", "LMN", "MYB")
ALIASES = {"CLK": ["clock homolog", "CLK-1"]}


def grader(**changes):
    return make_grader(Reward(ranking=RankingReward(**{"answer": 1.0, "format": 0.0, "aliases": ALIASES, **changes})))


grade = grader()


def ask(gold: str, *others: str) -> Question:
    thoughts = ("cough: ARX CLK",)
    return Question("r", None, "ranking", "Which gene is it?", label=gold, thoughts=thoughts, others=others)


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
        pytest.param("x" * 1000, 0, None, Failure.NOT_RANKED, id="long"),
        pytest.param("CLK, " + "x" * 1001, 0, None, Failure.TOO_LONG, id="too long for a name"),
    ],
)
def test_answers(content, reward, rank, failure):
    got = grade(answer(content), ask("CLK"))
    assert (got.reward, got.rank, got.failure) == (reward, rank, failure)


def test_the_right_name_only_in_the_thinking_is_no_answer():
    assert grade("<think>CLK</think>", ask("CLK")).failure == Failure.NO_ANSWER


def test_the_gold_answer_may_go_on_and_only_its_first_name_is_right():
    question = ask("CLK", "ARX", "BDN")
    (target,) = targets(question)
    assert target == answer("CLK, ARX, BDN")
    assert grade(target, question).reward == 1
    assert grade(answer("ARX, CLK"), question).reward == 0.7


@pytest.mark.parametrize(
    ("content", "reward", "rank"),
    [
        ("T-cell lymphoma, adult", 1, 1),
        ("1. B-cell lymphoma, 2. t cell LYMPHOMA,  adult, 3. gout", 0.7, 2),
        ("gout; T-cell lymphoma; adult", 0.7, 2),
        ("gout, ATLL", 0.7, 2),
        ("adult disease, of T-cells", 1, 1),
        ("T-cell lymphoma", 0, None),
        ("adult, T-cell lymphoma", 0, None),
        ("T-cell lymphoma, of the adult", 0, None),
        (", ".join(["T-cell lymphoma, adult"] * 10), 1, 1),
    ],
)
def test_a_name_with_a_comma_is_one_name(content, reward, rank):
    aliases = {"T-cell lymphoma, adult": ["ATLL", "adult disease, of T-cells"]}
    for question in (ask("T-cell lymphoma, adult"), ask("atll")):
        got = grader(aliases=aliases)(answer(content), question)
        assert (got.reward, got.rank) == (reward, rank)
    if "disease" not in content and "ATLL" not in content:  # the gold name is known without an alias too
        assert grade(answer(content), ask("T-cell lymphoma, adult")).reward == reward


def test_the_target_of_names_with_commas_is_read_back():
    question = ask("T-cell lymphoma, adult", "B-cell lymphoma, of the young", "gout")
    (target,) = targets(question)
    assert grade(target, question).reward == 1


def test_a_gold_answer_that_is_no_name_is_named():
    with pytest.raises(ValueError, match="the gold name is ', ;'; give a name with a letter"):
        grade(answer("CLK"), ask(", ;"))


def test_the_scale_is_configurable_and_must_not_rise():
    steep = grader(scores=[1.0, 0.2], later=0.0, max_names=3)
    assert [steep(answer(text), ask("CLK")).reward for text in ("CLK", "ARX,CLK", "ARX,BDN,CLK")] == [1, 0.2, 0]
    with pytest.raises(ValueError, match=r"must not rise with the rank: \[0.5, 0.7, 0.1\]"):
        RankingReward(answer=1.0, format=0.0, scores=[0.5, 0.7])


entries = [*GENES, "clk-1", "", "1. ", "\u2011", ",", "x" * 300, "T-cell lymphoma", "adult"]
names = st.lists(st.sampled_from(entries), max_size=14)


lists = given(names.map(", ".join), st.sampled_from([*GENES, "T-cell lymphoma, adult"]))


@lists
@settings(max_examples=300, deadline=None)
def test_any_list_is_worth_no_more_than_the_rank_of_its_best_place(content, gold):
    check(content, gold)


@pytest.mark.slow
@lists
@settings(max_examples=20_000, deadline=None)
def test_any_list_20_000(content, gold):
    check(content, gold)


def check(content: str, gold: str) -> None:
    got = timed(grade, answer(content), ask(gold))
    assert math.isfinite(got.reward) and 0 <= got.reward <= 1
    assert (got.reward > 0) == (got.rank is not None) and (got.rank is None or got.rank <= 10)
    assert got.reward or got.failure
    if got.rank:
        assert grade(answer(gold), ask(gold)).reward >= got.reward


@pytest.mark.parametrize(
    "unit", ["a", ",", "a,", "\ufdfa", "\ufdfa,", "\ufdfa" * 999 + ",", "1. ", "\u0344", "T-cell lymphoma, "]
)
def test_hostile_repetition_takes_no_time(unit):
    for size in (9_000, 65_000):
        check((unit * size)[:size], "T-cell lymphoma, adult")
