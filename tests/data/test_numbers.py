"""What is a number, and what hedges, goes on in words or lists several; tests/graders/test_maths.py has the rewards."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks
from tasks.data.numbers import Quantity, parse_number

POSSESSIVE_GROUP = re.compile(r"\)[+*?}]\+")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("7 wrong", id="taken back at once"),
        pytest.param("7 (incorrect)", id="taken back in brackets"),
        pytest.param("7 mistaken", id="taken back in another word"),
        pytest.param("7 to eight", id="a range"),
        pytest.param("7 versus eight", id="one against the other"),
        pytest.param("7 vs. the rest", id="one against the other, in short"),
        pytest.param("7 to a dozen", id="a range to a scale"),
        pytest.param("7 apples and seven pears", id="two quantities"),
        pytest.param("7 twenty-one", id="two numbers"),
        pytest.param("7 plus two", id="a sum in words"),
        pytest.param("7 plus", id="more than"),
        pytest.param("7 minus a bit", id="less than"),
        pytest.param("7 times eight", id="a product in words"),
        pytest.param("7 times a hundred", id="a product with a scale"),
        pytest.param("7 point five", id="decimals in words"),
        pytest.param("7 and a half", id="a half more"),
        pytest.param("7 dollars and a quarter", id="a quarter more"),
        pytest.param("7 and three quarters", id="three quarters more"),
        pytest.param("7 thirds", id="a fraction"),
        pytest.param("7 hundredths", id="a small fraction"),
        pytest.param("7 half", id="half of it, or a half more"),
        pytest.param("7 squared", id="a power"),
        pytest.param("7 pi", id="a multiple of pi"),
        pytest.param("7pi", id="a multiple of pi in one word"),
        pytest.param("7K", id="thousands or kelvins"),
        pytest.param("7M", id="millions or metres"),
        pytest.param("$7 m", id="a price in metres"),
        pytest.param("0.007k and one", id="goes on after a letter"),
        pytest.param("x = 7 = 8", id="two equations"),
        pytest.param("x = 8 or x = 7", id="two solutions"),
        pytest.param("eight = 7", id="an equation in letters"),
        pytest.param("\\boxed{7} 8", id="another beside the box"),
        pytest.param("\\boxed{7}\\boxed{8}", id="two boxes"),
        pytest.param("\\boxed{7 or 8}", id="two in one box"),
        pytest.param("\\boxed{7", id="an open box"),
        pytest.param("**7** or 8", id="another beside the bold one"),
        pytest.param("**7** **8**", id="two bold ones"),
        pytest.param("**" * 30 + "7", id="stars"),
        pytest.param("7/8/9", id="a list with slashes"),
        pytest.param("7/eight", id="one of them in letters"),
        pytest.param("7 m2 8", id="another after an area"),
        pytest.param("7 m 4", id="no power"),
        pytest.param("7 in 2", id="odds"),
        pytest.param("7 ft 2", id="feet and inches"),
        pytest.param("7 \\pm", id="more or less"),
        pytest.param("7 apples 2", id="no area"),
        pytest.param("7,00,8", id="no grouping"),
        pytest.param("7,8,9,0", id="a longer list"),
        pytest.param("7 and 8", id="two and no fraction"),
        pytest.param("\\frac{1}{2}5", id="a digit after a fraction"),
        pytest.param("\\frac{1}{0}", id="a fraction of nothing"),
        pytest.param("\\frac{7}{8} \\frac{1}{2}", id="two fractions"),
        pytest.param("\\frac{x}{2}", id="a fraction of letters"),
        pytest.param("\u00bd\u00bc", id="two signs of fractions"),
        pytest.param("3/\u00bd", id="a fraction below a fraction"),
    ],
)
def test_what_says_more_than_one_number_is_none(text):
    assert parse_number(text) is None


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "{:,}", "${}", "{} dollars", "{}.0", "{:,}.00 km", "**{}**", "x = {}", "\\boxed{{{:,}}}"]),
)
@settings(max_examples=200, deadline=None)
def test_a_number_is_read_back_from_any_spelling(number, form):
    assert parse_number(form.format(number)) == Quantity(float(number))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\u00bd", 0.5),
        ("1\u00bd", 1.5),
        ("-2 \u00be cups", -2.75),
        ("x = \u2153", 1 / 3),
        ("$1\u00bc", 1.25),
        ("\\frac{3}{4}", 0.75),
        ("-\\dfrac{3}{4}", -0.75),
        ("2\\tfrac{1}{2} km", 2.5),
        ("$\\boxed{\\frac{10}{4}}$.", 2.5),
    ],
)
def test_a_fraction_is_read_from_its_sign_and_from_latex(text, value):
    assert parse_number(text) == Quantity(value)


def test_no_pattern_has_a_possessive_group():
    """Before Python 3.11.5 one keeps what it failed within (gh-106052), and rewards would depend on a patch release."""
    assert POSSESSIVE_GROUP.search(r"(?:,[0-9]{3})++")
    files = Path(tasks.__file__).parent.rglob("*.py")
    assert [path for path in files if POSSESSIVE_GROUP.search(path.read_text(encoding="utf-8"))] == []
