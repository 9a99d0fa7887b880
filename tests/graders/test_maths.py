"""Numbers and letters: the gold, the empty and the hacked answer, ReFT's executed defects, and all of GSM8K."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.frame import Failure
from tasks.graders.maths import format_answer, parse_answer, wrong_steps
from tasks.graders.target import targets
from tasks.params import MathsReward, Reward, load_params
from tests.graders.timing import timed

GSM8K = Path("/work/shared/data/gsm8k")
grade = make_grader(load_params().reward)


def grader(**changes):
    return make_grader(Reward(maths=MathsReward(**{"answer": 1.0, "format": 0.0, **changes})))


reft, sentence = grader(partial=0.1), grader(form="sentence")
checked = grader(check_steps=True, length=0.5, partial=0.5)


def ask(gold: str, *chains: str) -> Question:
    return Question("r", None, "maths", "How many?", label=gold, thoughts=chains or ("",))


def answer(content: str, think: str = "3 + 4 = 7") -> str:
    return f"<think>{think}</think><answer>{content}</answer>"


@pytest.mark.parametrize(
    ("stated", "gold"),
    [
        ("1,234", "1234"), ("1234", "1,234"), ("$18", "18"), ("18", "$18"), ("18 dollars", "$18"), ("18.", "18"),
        ("-$5", "-5"), ("$-5", "-5"), ("\u22125", "-5"), ("+5", "5"), ("US$ 1,000.50", "1000.5"), ("\u20ac5", "5"),
        ("5 \u20ac", "5"), ("rs . 950", "950"), ("25%", "25"), ("25 percent", "25"), ("25%", "0.25"), ("0.25", "25%"),
        ("3/4", "0.75"), ("3 / 4", "0.75"), ("1 1/2", "1.5"), ("-1 1/2", "-1.5"), (".5", "0.5"), ("5 km/h", "5"),
        ("2 dozen", "24"), ("2 dozen eggs", "24"), ("3 hundred", "300"), ("3 Hundred thousand", "300000"),
        ("5k", "5000"), ("5k dollars", "5000"), ("300 K", "300"), ("5km", "5"), ("7 more apples", "7"),
        ("3 million", "3000000"), ("2.5 thousand dollars", "2500"), ("1e3", "1000"), ("7.0", "7"), ("007", "7"),
        ("2 quarters", "2"), ("2 half dollars", "2"), ("2 five-dollar bills", "2"), ("7 times", "7"), ("1 point", "1"),
        ("5 wrong answers", "5"), ("3 false alarms", "3"), ("18 meters squared", "18"), ("5 m", "5"), ("5m", "5"),
        ("$1.5M", "1500000"), ("$2B", "2000000000"), ("\u20ac5K", "5000"), ("3 bn", "3e9"), ("3mn", "3000000"),
        ("2 lakh", "200000"), ("2 crore rupees", "20000000"), ("$5 a dozen", "5"),
        ("$18/hour", "18"), ("18 / hour", "18"), ("$5/dozen", "5"), ("18 m2", "18"), ("18 m^2", "18"),
        ("12 cm 2", "12"), ("18 ft ^ 3", "18"), ("18 in^2", "18"), ("$18/m2", "18"), ("1,00,000", "100000"),
        ("rs . 1,00,000", "100000"), ("12,34,567.50", "1234567.5"), ("s . 180", "180"), ("USD 5", "5"), ("EUR 5", "5"),
        ("INR5", "5"), ("3 and 1/2", "3.5"), ("-3 and 1 / 2", "-3.5"), ("x = 18", "18"), ("N=-18", "-18"),
        ("\\boxed{18}", "18"), ("$\\boxed{1,800 \\$}$.", "1800"), ("**18**", "18"), ("**$18.**", "18"),
        ("**\\boxed{18}**", "18"), ("\\$18", "18"), ("25\\%", "25"), ("0.3333", "1/3"), ("48.68", "48.68077"),
        ("3.0000000000000004", "3"), ("0", "0"),
    ],
)  # fmt: skip
def test_the_same_number_in_another_spelling(stated, gold):
    got = grade(answer(stated), ask(gold))
    assert (got.reward, got.failure, got.label) == (1.0, None, stated)


@pytest.mark.parametrize(
    ("stated", "failure"),
    [
        pytest.param("", Failure.EMPTY_ANSWER, id="empty"),
        pytest.param("NaN", Failure.BAD_NUMBER, id="published: 0.1, NaN is numeric"),
        pytest.param("inf", Failure.BAD_NUMBER, id="published: 0.1, infinity is numeric"),
        pytest.param("1e999", Failure.BAD_NUMBER, id="more than a float holds"),
        pytest.param("True", Failure.BAD_NUMBER, id="published: 1.0 for a gold 1, True is numeric"),
        pytest.param("1,2,3", Failure.BAD_NUMBER, id="a list"),
        pytest.param("5 6 7", Failure.BAD_NUMBER, id="several"),
        pytest.param("5 or 7", Failure.BAD_NUMBER, id="two candidates"),
        pytest.param("7 or eight", Failure.BAD_NUMBER, id="two candidates, one in letters"),
        pytest.param("7 is wrong", Failure.BAD_NUMBER, id="taken back"),
        pytest.param("7, not 8", Failure.BAD_NUMBER, id="one of two"),
        pytest.param("7 not", Failure.BAD_NUMBER, id="denied"),
        pytest.param("7 isn't it", Failure.BAD_NUMBER, id="denied in short"),
        pytest.param("7 or so", Failure.BAD_NUMBER, id="hedged"),
        pytest.param("7 at least", Failure.BAD_NUMBER, id="a bound"),
        pytest.param("0.07 hundred and one", Failure.BAD_NUMBER, id="goes on in words"),
        pytest.param("7 = 7", Failure.BAD_NUMBER, id="an equation"),
        pytest.param("3 + 4", Failure.BAD_NUMBER, id="a sum: never evaluated"),
        pytest.param("__import__('os').getpid()", Failure.BAD_NUMBER, id="code: never evaluated"),
        pytest.param("7" * 10_000, Failure.BAD_NUMBER, id="10,000 digits"),
        pytest.param("7/0", Failure.BAD_NUMBER, id="by zero"),
        pytest.param("seven", Failure.BAD_NUMBER, id="in letters"),
        pytest.param("B", Failure.BAD_NUMBER, id="a letter where a number is asked for"),
        pytest.param("\u0667", Failure.BAD_NUMBER, id="digits of another script"),
        pytest.param("7,0", Failure.BAD_NUMBER, id="a decimal comma"),
    ],
)
def test_what_is_no_number_earns_nothing(stated, failure):
    for graded in (grade, reft):
        got = graded(answer(stated), ask("7"))
        assert (got.reward, set(got.sub_rewards.values()), got.failure, got.label) == (0.0, {0.0}, failure, None)


def test_a_wrong_number_earns_its_form_or_the_partial_reward_of_reft():
    assert grade(answer("8"), ask("7")).reward == pytest.approx(0.1)  # the form
    got = reft(answer("8"), ask("7"))
    assert (got.reward, got.failure) == (pytest.approx(0.1), Failure.WRONG_ANSWER)
    assert grader()(answer("8"), ask("7")).reward == 0


@pytest.mark.parametrize(
    ("stated", "reward"),
    [("c", 1), ("C", 1), ("(c)", 1), ("c.", 1), ("d", 0), ("a b c d e", 0), ("a, b, c", 0), ("cd", 0), ("5", 0),
     ("", 0), ("the answer is c", 0), ("none", 0)],
)  # fmt: skip
def test_a_letter_is_strict_and_never_paid_in_part(stated, reward):
    """Published: any text of a chain without an answer earns 0.1 on multiple choice."""
    assert reft(answer(stated), ask("c")).reward == reward


# The defects of ReFT's published code that a grader of chains decides; test_programs has those of programs.
def test_any_chain_on_multiple_choice_earns_nothing():
    assert reft("a long chain of thought", ask("c")).reward == 0
    assert sentence("a long chain of thought", ask("c")).reward == 0


def test_a_chain_in_words_has_its_answer_read():
    """Published: the engine `nl` extracts None, whatever is said (issue 37)."""
    assert parse_answer("3 + 4 = 7.\nTherefore, the answer is: 7.", "sentence").answer == "7"
    assert sentence("3 + 4 = 7. Therefore, the answer is: $7.", ask("7")).reward == 1


def test_commas_currency_and_units_are_read_on_both_sides():
    assert all(grade(answer(said), ask(gold)).reward == 1 for said in ("1,234", "$1234") for gold in ("1,234", "1234"))


def test_absolute_tolerance_is_for_whole_numbers_and_relative_for_the_others():
    assert grade(answer("0.03"), ask("0.036")).failure == Failure.WRONG_ANSWER  # published: right, 0.006 off
    assert grade(answer("48680.8"), ask("48680.77")).failure is None  # published: wrong, 0.03 off
    assert grade(answer("1999"), ask("2000")).failure == Failure.WRONG_ANSWER  # 0.05%, but counted
    assert grade(answer("191999999"), ask("192,000,000")).failure == Failure.WRONG_ANSWER
    assert grade(answer("41.995"), ask("42")).failure is None


@pytest.mark.parametrize(
    ("stated", "gold", "right"),
    [
        ("33.333333333333336", "33.33", 1), ("100/3", "33.33", 1), ("33 1/3", "33.33", 1), ("27.6667", "27.67", 1),
        ("14.2857", "14.29", 1), ("21.38", "21.4", 1), ("21.4", "21.38", 1), ("-21.4", "-21.38", 1),
        ("0.333", "0.3333333333333333", 1), ("0.178", "0.17777777777777778", 1), ("0.1778", "0.17777777777777778", 1),
        ("50%", "0.5%", 0), ("0.5%", "50%", 0), ("99.5%", "100%", 0), ("33.3%", "33.333%", 1),
        ("21.4%", "0.2138", 1), ("33.3", "33.333%", 1), ("1,234.5", "1234.54", 1), ("1.00", "1.0049", 1),
        ("33.4", "33.35", 1), ("33.2", "33.25", 1), ("33.3", "33.25", 1), ("24.09", "24.095", 1),
        ("0.03", "0.036", 0), ("0.04", "0.036", 0), ("0.46", "0.5", 0), ("0.5", "0.46", 0), ("0.18", "0.1777", 0),
        ("333.33", "333", 0), ("333", "333.33", 0), ("333.0", "333.33", 0), ("333.04", "333.0", 0), ("33", "33.33", 0),
        ("33.34", "33.333", 0), ("33.4", "33.333", 0), ("21.4", "-21.38", 0),
        ("0.00", "0.001", 0), ("21.4 thousand", "21380.5", 0), ("214/10", "21.385", 0), ("2.14e1", "21.385", 0),
        ("21.38", "107/5", 0), ("0." + "3" * 77, "100000000000000000.5", 0),
    ],
)  # fmt: skip
def test_a_number_is_met_by_its_rounding_to_three_digits_or_more(stated, gold, right):
    assert grader()(answer(stated), ask(gold)).reward == right
    assert grader(relative_tolerance=0.0)(answer(stated), ask(gold)).reward == 0


@given(st.floats(1, 1e6), st.integers(2, 9), st.sampled_from(["{}", "-{}"]))
@settings(max_examples=200, deadline=None)
def test_any_rounding_and_what_it_rounds_are_one_answer(value, decimals, form):
    rounded, exact = form.format(f"{value:.{decimals}f}"), form.format(value)
    assert grader()(answer(rounded), ask(exact)).reward == 1
    if float(rounded) != int(float(rounded)):  # a whole gold number is counted
        assert grader()(answer(exact), ask(rounded)).reward == 1


def test_a_completion_that_was_cut_off_is_no_answer():
    for cut in ("<think>3 + 4", "<think>3 + 4 = 7</think><answer>7", "<think>3 + 4 = 7</think><answer>7</answ"):
        assert grade(cut, ask("7")).reward == 0
    for cut in ("3 + 4 = 7\nTherefore, the answer is: 7", "3 + 4 = 7\n#### 7"):
        got = sentence(cut, ask("7"))
        assert (got.reward, got.failure) == (0.0, Failure.UNCLOSED_ANSWER)
        assert sentence(cut + "\n", ask("7")).reward == 1
    assert sentence("#### 7.", ask("7.5")).reward == 0  # cut within the number
    assert sentence("#### 7\nAnd now", ask("7")).reward == 1 == grade(answer("7"), ask("7")).reward  # cut after it


def test_a_right_letter_after_wrong_arithmetic_earns_nothing_where_steps_are_checked():
    right, wrong = answer("c", "3 x 5 = 15 so c"), answer("c", "3 x 5 = 16 so c")
    assert checked(right, ask("c")).reward == 1
    got = checked(wrong, ask("c"))
    assert (got.sub_rewards["answer"], got.failure) == (0.0, Failure.WRONG_STEP)
    assert grader()(wrong, ask("c")).reward == 1  # as published


@pytest.mark.parametrize(
    ("chain", "wrong"),
    [("3 + 4 = 7; 7 - 5 = 2", 0), ("3 + 4 = 8", 1), ("1,000 * 3 = 3,000", 0), ("10 / 3 = 3.33", 0), ("7 // 2 = 3", 0),
     ("2 + 3 + 4 = 9", 0), ("48/2 = 24 clips", 0), ("5 x 6 = 31", 1), ("12/60 = $0.2", 0), ("2 * -3 = -6", 0),
     ("1 / 0 = 5", 1), ("50% * 2 = 1", 0), ("x1 + 2 = 4", 0), ("", 0), ("3x-5=16", 0),
     ("200 / 3 = 66.7", 0), ("1000 / 3 = 333", 0), ("10 / 3 = 3", 1), ("200 / 3 = 66.6", 1), ("6:00+48=6:48", 0),
     ("14, 400 / 80 = 180", 0), ("So, 3 + 4 = 8", 1), ("4 / 3 = 1 and 1/3", 0), ("4 / 3 = 1 1/3", 0),
     ("8 x 1 1/2 = 12", 0), ("30 +90 + 110 = 230", 0)],
)  # fmt: skip
def test_equations_of_a_chain(chain, wrong):
    assert wrong_steps(chain) == wrong


@pytest.mark.parametrize(
    ("text", "stated"),
    [("so\nTherefore, the answer is: 7.", "7"), ("#### 5\nno:\n#### 7\n", "7"), ("Therefore, the answer is: c.", "c"),
     ("Therefore, the answer is: $1,000.50.", "$1,000.50"), ("#### 7\nand more", "7")],
)  # fmt: skip
def test_the_form_sentence_takes_the_last_one(text, stated):
    parsed = parse_answer(text, "sentence")
    assert parsed.answer == stated
    assert parsed.well_formed == (not text.endswith("more"))


def test_the_targets_earn_the_top_in_both_forms_one_for_each_chain():
    question = ask("1,234", "1000 + 234 = 1234", "1300 - 66 = 1234")
    tagged, said = targets(question), targets(question, form="sentence")
    assert tagged[1] == "<think>1300 - 66 = 1234</think><answer>1,234</answer>"
    assert said[0] == "1000 + 234 = 1234\nTherefore, the answer is: 1,234."
    assert [grade(text, question).reward for text in tagged] == [1, 1]
    assert [sentence(text, question).reward for text in said] == [1, 1]


def test_what_could_not_be_read_back_is_refused():
    with pytest.raises(ValueError, match="not a readable answer"):
        format_answer("7", "I write </think>", "tags")
    with pytest.raises(ValueError, match="not a readable answer"):
        format_answer("7\n8", "", "sentence")
    with pytest.raises(ValueError, match="'seven'; give a number, or a letter"):
        grade(answer("7"), ask("seven"))
    with pytest.raises(ValueError, match=r"without an answer"):
        grade(answer("7"), Question("r", None, "maths", "How many?"))


@pytest.mark.skipif(not GSM8K.is_dir(), reason="no GSM8K here")
def test_all_gold_answers_of_gsm8k_earn_one_and_a_changed_digit_nothing():
    """8,792 problems: the answer, the whole gold solution in the form `sentence`, and each digit changed."""
    strict, num = grader(), 0
    for line in (line for name in ("train", "test") for line in (GSM8K / f"{name}.jsonl").open()):
        solution = json.loads(line)["answer"]
        gold = solution.rpartition("####")[2].strip()
        question, num = ask(gold), num + 1
        assert grade(answer(gold), question).reward == 1.0, gold
        assert sentence(solution + "\n", question).reward == 1.0, gold
        for place, digit in enumerate(gold):
            if digit.isdigit():
                changed = gold[:place] + str((int(digit) + 1) % 10) + gold[place + 1 :]
                assert strict(answer(changed), question).reward == 0.0, (gold, changed)
    assert num == 8792


soup = st.lists(
    st.one_of(
        st.sampled_from(
            ["<think>", "</think>", "<answer>", "</answer>", "####", "Therefore, the answer is:", "NaN", "1e999", "7",
             "1,2,3", "$7", "7%", "a", "B", "(c)", "=", "+", "/", ".", "\n", "9" * 400, "1e5", "True", "\u0667", "-",
             "\\boxed{", "}", "**", "x =", "and", "half", "dozen", "m2", "M", "1,00,000", "$1.5M", "3 1/2"]
        ),
        st.text(max_size=12),
    ),
    max_size=20,
).map(" ".join)  # fmt: skip
contents = soup.map(answer)


def check(text: str, gold: str) -> None:
    for graded in (grade, reft, sentence, checked):
        got = timed(graded, text, ask(gold))
        for value in (got.reward, *got.sub_rewards.values()):
            assert math.isfinite(value) and 0 <= value <= 1
        assert got.reward or got.failure  # a typed code for every zero


@given(st.one_of(soup, contents), st.sampled_from(["7", "0.5", "c", "-1,000"]))
@settings(max_examples=300, deadline=None)
def test_any_text(text, gold):
    check(text, gold)


@pytest.mark.slow
@given(st.one_of(soup, contents), st.sampled_from(["7", "0.5", "c", "-1,000"]))
@settings(max_examples=20_000, deadline=None)
def test_any_text_20_000(text, gold):
    check(text, gold)


@pytest.mark.parametrize(
    "unit", ["1", "1,", "1 ", "1/", ",", "$", "-", " ", "a ", "1+", "1 + 1 = ", "#### ", "1,00,", "1,00,000+", "**"]
)
def test_hostile_repetition_takes_no_time(unit):
    text = (unit * 65_000)[:65_000]
    check(answer(text), "7")
    check(answer("7", text), "7")
    check(text, "7")
