"""Programs: what their results are worth, and what the sandbox stops."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.records import Question
from tasks.graders import make_grader, programs
from tasks.graders.batch import grade_all
from tasks.graders.frame import Failure
from tasks.graders.programs import parse_program
from tasks.graders.sandbox import Failure as Ended
from tasks.graders.sandbox import Ran, SandboxError
from tasks.graders.target import targets
from tasks.params import ProgramReward, Reward
from tests.graders.timing import timed

GOLD = "def solution():\n    a = 3 + 4\n\n    b = a - 5\n    return b"
LIMITS = {"seconds": 1.0, "memory_mb": 256}
grade = make_grader(Reward(program=ProgramReward(answer=0.9, format=0.1, **LIMITS)))
reft = make_grader(Reward(program=ProgramReward(answer=1.0, format=0.0, partial=0.1, **LIMITS)))


def ask(gold: str = "2", *chains: str) -> Question:
    return Question("r", None, "program", "How many?", label=gold, thoughts=chains or ("",))


def answer(source: str) -> str:
    return f"<think></think><answer>{source}</answer>"


def returning(expression: str) -> str:
    return answer(f"def solution():\n    return {expression}")


@pytest.fixture
def returns(monkeypatch):
    """Programs that all return one value, or fail in one way, without a sandbox."""

    def returns(value=None, failure=None):
        sandbox = SimpleNamespace(map=lambda calls: [Ran(value, failure) for _ in calls])
        monkeypatch.setattr("tasks.graders.judges.sandboxed", lambda *_: sandbox)

    return returns


@pytest.mark.parametrize(("value", "text"), [(2, "2"), (2.0, "2"), (2.0000000004, "2.0000000004"), (1.995, "1.995")])
def test_a_result_is_compared_like_a_number(returns, value, text):
    returns(value)
    got = grade(answer(GOLD), ask())
    assert (got.reward, got.failure, got.label) == (1.0, None, text)


def test_a_program_may_round_as_text_may(returns):
    returns(3.33)
    assert grade(answer(GOLD), ask("3.33333")).reward == 1
    returns(3.34)
    assert grade(answer(GOLD), ask("3.33333")).failure == Failure.WRONG_ANSWER


@pytest.mark.parametrize(
    "value",
    [None, True, "2", [2], {"answer": 2}, "", math.nan, math.inf, -math.inf, 10**400, 1e300, "two", "c"],
)
def test_a_result_that_is_no_number_earns_nothing(returns, value):
    """Published: True is 1, NaN and infinity are numeric, and a crash on multiple choice earns 0.1."""
    returns(value)
    got = reft(answer(GOLD), ask())
    assert (got.reward, got.failure) == (0.0, Failure.BAD_RESULT)


def test_a_wrong_number_earns_the_partial_reward_and_a_letter_never(returns):
    returns(3)
    assert (reft(answer(GOLD), ask()).reward, reft(answer(GOLD), ask("c")).reward) == (0.1, 0)
    returns("d")
    assert reft(answer(GOLD), ask("c")).reward == 0
    returns("c")
    assert reft(answer(GOLD), ask("c")).reward == 1


@pytest.mark.parametrize(
    ("kind", "failure"),
    [(Ended.EXCEPTION, Failure.BAD_PROGRAM), (Ended.NO_FUNCTION, Failure.BAD_PROGRAM),
     (Ended.KILLED, Failure.BAD_PROGRAM), (Ended.TIMEOUT, Failure.PROGRAM_LIMIT),
     (Ended.MEMORY, Failure.PROGRAM_LIMIT), (Ended.OUTPUT, Failure.PROGRAM_LIMIT),
     (Ended.NO_RESULT, Failure.BAD_RESULT), (Ended.BAD_RESULT, Failure.BAD_RESULT)],
)  # fmt: skip
def test_a_program_that_fails_earns_nothing_not_even_its_form(returns, kind, failure):
    returns(failure=kind)
    for gold in ("2", "c"):
        assert (grade(answer(GOLD), ask(gold)).reward, grade(answer(GOLD), ask(gold)).failure) == (0.0, failure)


def test_the_whole_program_is_read_blank_lines_included():
    """Published: code after the first blank line is dropped."""
    assert parse_program(answer(GOLD)).source == GOLD
    assert parse_program(answer(f"```python\n{GOLD}\n```")).source == GOLD


@pytest.mark.parametrize(
    ("completion", "failure"),
    [
        (GOLD, Failure.NO_ANSWER),
        (answer(""), Failure.EMPTY_ANSWER),
        (answer("```python\n\n```"), Failure.EMPTY_ANSWER),
        (answer(GOLD)[:-9], Failure.UNCLOSED_ANSWER),
        (answer(GOLD) * 2, Failure.SEVERAL_ANSWERS),
    ],
)
def test_what_cannot_be_read_is_not_run(monkeypatch, completion, failure):
    monkeypatch.setattr("tasks.graders.judges.sandboxed", lambda *_: pytest.fail("it ran"))
    got = grade(completion, ask())
    assert (got.reward, got.failure) == (0.0, failure)


def test_the_targets_are_the_programs_and_there_is_none_without():
    assert targets(ask("2", GOLD, GOLD)) == [answer(GOLD)]
    assert targets(ask("2")) == []
    with pytest.raises(ValueError, match="not a readable program"):
        targets(ask("2", "x = '</answer>'"))


fragments = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "```",
    "```python\n",
    "\n",
    "def solution():",
    "\ufdfa",
    " ",
]
programs_in_words = st.lists(st.one_of(st.sampled_from(fragments), st.text(max_size=20)), max_size=30).map("".join)
any_program = given(st.one_of(programs_in_words, programs_in_words.map(answer)))


def check_parser(text: str) -> None:
    parsed = timed(parse_program, text)
    assert (parsed.source is None) == (parsed.failure is not None)
    assert parsed.source is None or parsed.source.strip()
    assert not (parsed.failure and parsed.well_formed)


@any_program
@settings(max_examples=300, deadline=None)
def test_any_text(text):
    check_parser(text)


@pytest.mark.slow
@any_program
@settings(max_examples=20_000, deadline=None)
def test_any_text_20_000(text):
    check_parser(text)


@pytest.mark.parametrize("unit", ["```python\n", "```", "\n", " ", "a", "\ufdfa", "```python\na\n```", "<answer>"])
def test_hostile_repetition_takes_no_time(unit):
    content = (unit * 65_000)[:65_000]
    for text in (content, answer(content), answer(f"```python\n{content}")):
        check_parser(text)


class TestInTheSandbox:
    """The same with programs that run."""

    @pytest.mark.parametrize(
        "source",
        [GOLD, "def solution():\n    return 2.0", "import math\n\ndef solution():\n    return math.sqrt(4)",
         "def helper(x):\n    return x + 1\n\ndef solution():\n    print('hello')\n    return helper(1)"],
    )  # fmt: skip
    def test_right_programs(self, source):
        got = grade(answer(source), ask())
        assert (got.reward, got.failure, got.label) == (1.0, None, "2")

    @pytest.mark.parametrize(
        ("source", "failure"),
        [
            pytest.param("def solution():\n    print(2)", Failure.BAD_RESULT, id="prints instead of returning"),
            pytest.param("print(2)", Failure.BAD_PROGRAM, id="no function"),
            pytest.param("2", Failure.BAD_PROGRAM, id="a number"),
            pytest.param("def solution(", Failure.BAD_PROGRAM, id="does not compile"),
            pytest.param("def solution():\n    return 1 / 0", Failure.BAD_PROGRAM, id="raises"),
            pytest.param("import sys\ndef solution():\n    sys.exit(0)", None, id="sys.exit"),
            pytest.param("import os\ndef solution():\n    os._exit(0)", None, id="os._exit"),
            pytest.param("def solution():\n    while True: pass", Failure.PROGRAM_LIMIT, id="an infinite loop"),
            pytest.param("def solution():\n    return [0] * 10**10", None, id="memory"),
            pytest.param("def solution():\n    return float('nan')", Failure.BAD_RESULT, id="NaN"),
            pytest.param("def solution():\n    return True", Failure.BAD_RESULT, id="True"),
            pytest.param("def solution():\n    return 10 ** 10_000", Failure.BAD_RESULT, id="10,000 digits"),
            pytest.param("def solution():\n    return open('/etc/passwd').read()", None, id="a file"),
            pytest.param("def solution(x):\n    return 2", Failure.BAD_PROGRAM, id="an argument"),
        ],
    )
    def test_wrong_programs_earn_nothing(self, source, failure):
        for gold in ("2", "c"):
            got = reft(answer(source), ask(gold))
            assert got.reward == 0 and got.failure
            assert failure is None or got.failure == failure

    def test_one_sandbox_serves_a_process(self):
        assert programs.sandboxed(1.0, 256, "auto") is programs.sandboxed(1.0, 256, "auto")

    def test_many_are_graded_as_each_alone(self):
        sources = [GOLD, "def solution():\n    return 3", "1 +", GOLD.replace("5", "5.0")] * 3
        texts = [answer(source) for source in sources] + ["nothing"]
        together = grade_all(grade, texts, [ask()] * len(texts))
        assert together == [grade(text, ask()) for text in texts]
        assert [got.reward for got in together] == [1.0, 0.1, 0.0, 1.0] * 3 + [0.0]


def test_a_sandbox_that_breaks_in_one_call_makes_that_answer_invalid_alone(monkeypatch):
    runs = [SandboxError("a worker ended with -9"), Ran(2)]
    monkeypatch.setattr("tasks.graders.judges.sandboxed", lambda *_: SimpleNamespace(map=lambda calls: runs))
    broken, right = grade_all(grade, [answer(GOLD)] * 2, [ask()] * 2)
    assert (broken.reward, broken.invalid) == (0.0, "sandbox: a worker ended with -9")
    assert (right.reward, right.invalid) == (1.0, None)


def test_the_isolation_asked_for_is_the_sandboxs(monkeypatch):
    monkeypatch.setattr("tasks.graders.judges.sandboxed", lambda *words: pytest.fail(str(words)))
    asks = make_grader(Reward(program=ProgramReward(answer=1, format=0, isolation="bubblewrap", **LIMITS)))
    with pytest.raises(pytest.fail.Exception, match="bubblewrap"):
        asks(answer(GOLD), ask())
