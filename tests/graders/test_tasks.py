"""Classification and grounding: parsers, rubrics, targets, with the gold, the empty and the hacked answer of each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.boxes import giou
from tasks.graders.frame import Failure
from tasks.graders.grounding import format_box, parse_grounding
from tasks.graders.labels import alias_table, canonical, choice_reward, count_reward, format_label
from tasks.graders.rubric import length_reward
from tasks.graders.target import targets
from tasks.params import ClassificationReward, GroundingReward, Prompt, Reward, load_params

BOX = (100.0, 100.0, 300.0, 300.0)
REWARD = load_params().reward
grade = make_grader(REWARD)


def classify(label: str) -> Question:
    return Question("r", "r.png", "classification", "", label=label)


def refer(*boxes) -> Question:
    return Question("r", "r.png", "grounding", "the largest digit", boxes)


def answer(content: str) -> str:
    return f"<think>seven</think><answer>{content}</answer>"


def rubric_of(**weights):
    return make_grader(Reward(classification=ClassificationReward(**{"label": 0.0, "format": 0.0, **weights})))


@pytest.mark.parametrize(
    ("stated", "gold"),
    [
        ("747 200", "747-200"),
        ("747_200", "747-200"),
        ("747\u2011200", "747-200"),
        ("747 \u2013 200", "747-200"),
        ("Red  SEVEN", "red seven"),
        ("\nred\tseven\n", "red seven"),
        ("stra\u00dfe", "STRASSE"),
        ("\uff12", "2"),
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01re hydrant", "fire-hydrant"),
    ],
)
def test_the_same_label_in_another_spelling(stated, gold):
    got = grade(answer(stated), classify(gold))
    assert (got.reward, got.failure, got.label) == (1.0, None, stated.strip())


@pytest.mark.parametrize(
    ("completion", "failure"),
    [
        pytest.param("", Failure.NO_ANSWER, id="empty"),
        pytest.param(answer(""), Failure.EMPTY_ANSWER, id="published: 1, the empty text is in every label"),
        pytest.param(answer(" -_ "), Failure.EMPTY_ANSWER, id="only separators"),
        pytest.param("<think>red seven</think>", Failure.NO_ANSWER, id="published: 1, named only in the thinking"),
        pytest.param("<think>x</think><answer>red seven", Failure.UNCLOSED_ANSWER, id="cut off"),
        pytest.param(answer("red seven") * 2, Failure.SEVERAL_ANSWERS, id="twice"),
    ],
)
def test_unreadable_labels(completion, failure):
    got = grade(completion, classify("red seven"))
    assert (got.reward, set(got.sub_rewards.values()), got.failure, got.label) == (0.0, {0.0}, failure, None)


@pytest.mark.parametrize(
    "stated",
    [
        pytest.param("e", id="published: 1, one letter"),
        pytest.param("seven", id="published: 1, a part"),
        pytest.param("red seven, blue two, red two", id="published: 1, all candidates"),
        pytest.param("red seven or blue two", id="two candidates"),
        pytest.param("not red seven", id="denied"),
        pytest.param("redseven", id="without its space"),
        pytest.param("red seven.", id="other punctuation is kept"),
        pytest.param("r" * 900, id="long"),
    ],
)
def test_another_label_earns_nothing_but_its_form(stated):
    got = grade(answer(stated), classify("red seven"))
    assert got.sub_rewards == {"label": 0.0, "format": 1.0}
    assert (got.reward, got.failure) == (pytest.approx(0.1), Failure.WRONG_LABEL)


def test_aliases_count_as_their_label_in_both_directions():
    grade = rubric_of(label=1.0, aliases={"Boeing 747-200": ["B747", "jumbo jet"]})
    for stated in ("boeing 747 200", "b747", "Jumbo-Jet"):
        assert grade(answer(stated), classify("boeing 747-200")).reward == 1
        assert grade(answer(stated), classify("B747")).reward == 1
    assert grade(answer("boeing"), classify("boeing 747-200")).reward == 0


def test_an_alias_of_two_labels_is_refused():
    with pytest.raises(ValueError, match="aliases of 'two': 'a b' is 'one' too; a name"):
        alias_table({"one": ["A-B"], "two": ["a b"]})
    with pytest.raises(ValueError, match="empty"):
        alias_table({"one": ["-"]})


def test_a_label_of_more_than_1000_characters_is_too_long():
    got = grade(answer("x" * 1001), classify("red seven"))
    assert (got.reward, got.failure) == (0, Failure.TOO_LONG)


@pytest.mark.parametrize(
    ("stated", "gold", "value"),
    [("4", "4", 1), ("3", "4", 0.75), ("5", "4", 0.8), ("0", "0", 1), ("0", "4", 0), ("1000000", "4", 4e-6)]
    + [(text, "4", 0) for text in ("four", "-4", "4.0", "3 4 5", "", "\u0664", "9" * 5000)],
)
def test_count(stated, gold, value):
    assert count_reward(stated, gold) == pytest.approx(value)


@pytest.mark.parametrize(
    ("stated", "value"),
    [("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("B:", 1), ("C", 0), ("", 0), ("A B C", 0), ("AB", 0), ("Beta", 0)],
)
def test_choice(stated, value):
    assert choice_reward(stated, "B") == value


def test_a_gold_answer_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        rubric_of(count=1.0)(answer("4"), classify("four"))
    with pytest.raises(ValueError, match="one letter"):
        rubric_of(choice=1.0)(answer("A"), classify("red seven"))


def test_a_rubric_names_count_choice_and_length():
    counted = rubric_of(count=0.5, length=0.5, max_characters=100)(answer("3"), classify("4"))
    assert counted.sub_rewards == {"label": 0.0, "count": 0.75, "format": 1.0, "length": 1.0}
    assert (counted.reward, counted.failure) == (pytest.approx(0.875), None)
    assert rubric_of(choice=1.0)(answer("(B)"), classify("B")).reward == 1
    lengthy = rubric_of(label=1.0, length=1.0, max_characters=10)(answer("4"), classify("4"))
    assert (lengthy.reward, lengthy.failure) == (0.5, Failure.OVER_LENGTH)


def test_length_falls_from_the_limit_to_twice_it():
    assert [length_reward(n, 100) for n in (0, 100, 150, 200, 10**6)] == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize(
    "content",
    [
        "(100,100),(300,300)",
        "(100, 100), (300, 300)",
        "(100,100)(300,300)",
        "[100, 100, 300, 300]",
        "\n[100.0,\n100.0, 300.00, 300]\n",
    ],
)
def test_readable_boxes(content):
    got = grade(answer(content), refer(BOX))
    assert (got.reward, got.failure, got.boxes) == (1.0, None, (BOX,))


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        pytest.param("(300,300),(100,100)", Failure.BAD_BOX, id="published: 2, inverted"),
        pytest.param("(100,100),(300,300),(100,100),(300,300)", Failure.SEVERAL_BOXES, id="published: 34.5, two boxes"),
        pytest.param("[100, 100, 300, 300] [0, 0, 1000, 1000]", Failure.SEVERAL_BOXES, id="two lists"),
        pytest.param("[[100, 100, 300, 300]]", Failure.BAD_BOX, id="a list of lists"),
        pytest.param("(100,100),(100,300)", Failure.BAD_BOX, id="no width"),
        pytest.param("(-1,100),(300,300)", Failure.BAD_BOX, id="below 0"),
        pytest.param("(100,100),(300,1001)", Failure.BAD_BOX, id="above 1000"),
        pytest.param(f"(100,100),(300,{'9' * 400})", Failure.BAD_BOX, id="more than a float holds"),
        pytest.param("the box (100,100),(300,300)", Failure.BAD_BOX, id="words beside it"),
        pytest.param("(100,100)", Failure.NO_BOX, id="one corner"),
        pytest.param("[100, 100, 300]", Failure.NO_BOX, id="three numbers"),
        pytest.param("(nan,100),(300,300)", Failure.NO_BOX, id="NaN"),
        pytest.param("(1e2,100),(300,300)", Failure.NO_BOX, id="exponents are no coordinates"),
        pytest.param("No Objects", Failure.NO_BOX, id="denied: there is one"),
        pytest.param("", Failure.NO_BOX, id="nothing"),
    ],
)
def test_unreadable_boxes(content, failure):
    got = grade(answer(content), refer(BOX))
    assert (got.reward, set(got.sub_rewards.values()), got.failure, got.boxes) == (0.0, {0.0}, failure, ())


def test_overlap_is_paid_and_a_disjoint_box_only_for_its_form():
    half = grade(answer("(100,100),(300,200)"), refer(BOX))
    assert half.sub_rewards == {"iou": 0.5, "format": 1.0} and half.reward == pytest.approx(0.55)
    away = grade(answer("(400,400),(600,600)"), refer(BOX))
    assert (away.reward, away.failure) == (pytest.approx(0.1), Failure.NO_MATCH)
    unframed = grade("<answer>(100,100),(300,300)</answer>", refer(BOX))
    assert (unframed.reward, unframed.failure) == (pytest.approx(0.9), Failure.BAD_FORMAT)


def test_giou_is_scaled_and_tells_near_from_far():
    grade = make_grader(Reward(grounding=GroundingReward(iou=0.0, giou=1.0, format=0.0)))
    rewards = [grade(answer(f"({x},100),({x + 200},300)"), refer(BOX)).reward for x in (100, 200, 300, 500, 800)]
    assert rewards[0] == 1 and sorted(rewards, reverse=True) == rewards and len(set(rewards)) == 5
    assert giou(BOX, (300, 100, 500, 300)) == pytest.approx(0)  # they touch, and fill their hull
    assert giou((0, 0, 1, 1), (9, 0, 10, 1)) == pytest.approx(-0.8)  # 2 of the hull's 10
    assert giou((0, 0, 1e-200, 1e-200), (0, 0, 1e-200, 1e-200)) == -1  # the areas underflow


@pytest.mark.parametrize(
    "question",
    [
        Question("r", "", "detection", "six", (BOX, (1.0, 2.0, 3.0, 4.0)), thoughts=("six [1, 2]",)),
        Question("r", "", "detection", "six", thoughts=("No six",)),
        Question("r", "", "classification", "", label="red-seven", thoughts=("a red digit",)),
        Question("r", "", "grounding", "the largest", (BOX,), thoughts=("seven [100, 100]",)),
    ],
    ids=["detection", "true negative", "classification", "grounding"],
)
def test_the_target_of_any_question_scores_one(question):
    got = grade(targets(question)[0], question)
    assert (got.reward, got.failure) == (1.0, None)
    assert f"<think>{question.thoughts[0]}</think>" in targets(question)[0]


@pytest.mark.parametrize(
    "question",
    [
        Question("r", "", "detection", "six", (BOX,), thoughts=("six [1, 2]",)),
        Question("r", "", "detection", "six", thoughts=("No six",)),
        Question("r", "", "classification", "", label="red-seven", thoughts=("a red digit",)),
        Question("r", "", "grounding", "the largest", (BOX,), thoughts=("seven [100, 100]",)),
    ],
    ids=["detection", "true negative", "classification", "grounding"],
)
def test_without_thinking_the_bare_answer_is_taught_and_paid_for(question):
    (target,) = targets(question, thinking=False)
    assert target.startswith("<answer>") and target.endswith("</answer>")
    plain = make_grader(REWARD, thinking=False)
    assert (plain(f" {target}\n", question).reward, plain(target, question).failure) == (1.0, None)
    for text in (targets(question)[0], f"<think></think>{target}", f"Sure! {target}", f"{target} Done."):
        got = plain(text, question)
        assert (got.sub_rewards["format"], got.failure) == (0, Failure.BAD_FORMAT)
        assert 0 < got.reward < 1
    assert grade(target, question).failure == Failure.BAD_FORMAT  # where thinking is asked for


def test_a_prompt_without_thinking_is_for_pictures():
    with pytest.raises(ValueError, match="thinking: false is for pictures; leave maths out"):
        Prompt(detection="{asked}", grounding="{asked}", classification="?", maths="{asked}", thinking=False)


def test_the_targets_literally():
    assert targets(classify("red seven"))[0] == "<think></think><answer>red seven</answer>"
    assert targets(refer((0.4, 1.6, 9, 10)))[0] == "<think></think><answer>(0,2),(9,10)</answer>"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: targets(Question("r", "", "classification", "")), "without a label"),
        (lambda: targets(refer()), "0 boxes"),
        (lambda: format_label("</answer>"), "several_answers|nested"),
        (lambda: format_label(" "), "empty_answer"),
        (lambda: format_label("six", "I close my </think>"), "bad_format"),
        (lambda: format_box((0, 0, 1001, 5)), r"0\.\.1000"),
        (lambda: format_box(BOX, "<answer>"), "nested_tags"),
        (lambda: grade(answer("x"), Question("r", "", "classification", "")), "without a label"),
        (lambda: grade(answer("x"), refer(BOX, BOX)), "2 boxes"),
        (lambda: make_grader(Reward())(answer("x"), refer(BOX)), r"give reward\.grounding"),
    ],
)
def test_questions_without_their_gold_answer_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_canonical_is_idempotent(text):
    assert canonical(canonical(text)) == canonical(text)


sides = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda s: s[0] < s[1])


@given(st.tuples(sides, sides).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1])), st.text(alphabet="ab (1,2)é"))
@settings(max_examples=300, deadline=None)
def test_round_trip_of_a_box(box, think):
    parsed = parse_grounding(format_box(box, think))
    assert (parsed.box, parsed.well_formed) == (box, True)
