"""Rows of OpenAI's jobs: what is sent, what is graded with, and that nothing gets lost between file and question."""

import json
from pathlib import Path

import pytest

from tasks.data.questions import messages
from tasks.data.records import read_questions
from tasks.data.sources.openai import problem_of
from tasks.params import Slice, load_params
from tasks.prepare import prepare
from tasks.schema.dataset import OpenaiDataset
from tasks.slice import make_slice

ROWS = [
    {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": f"{n} + "}, {"type": "text", "text": "1?"}]},
        ],
        "answer": {"value": n + 1, "aliases": [str(n + 1)]},
        "tools": [],
    }
    for n in range(6)
]


def pool(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = OpenaiDataset(source="openai", train={"rows": str(path)}, num_val=1, num_test=1, max_quarantined=1.0)
    prepare(dataset, tmp_path / "pool")
    return tmp_path / "pool"


def test_a_row_comes_back_as_its_conversation_and_its_item(tmp_path):
    make_slice(Slice(), pool(tmp_path, ROWS), 4, 0, tmp_path / "slice")
    prompt = load_params().prompt
    questions = read_questions(tmp_path / "slice" / "train.jsonl")
    assert len(questions) == 4 and len({hash(q) for q in questions}) == 4
    for question in questions:
        number = question.item["answer"]["value"] - 1
        assert question.item == {"answer": ROWS[number]["answer"]}  # without messages and tools
        user = {"role": "user", "content": f"{number} + 1?"}
        assert messages(prompt, question) == [{"role": "system", "content": "Be short."}, user]
        told = messages(prompt.model_copy(update={"job": "JSON!"}), question)
        assert told == [{"role": "system", "content": "JSON!\n\nBe short."}, user]


def user(content: object, **more) -> dict:
    return {"role": "user", "content": content, **more}


@pytest.mark.parametrize("nothing", ["", " \n", None, [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_that_says_nothing_is_not_sent(role, nothing):
    assert problem_of({"messages": [{"role": role, "content": nothing}, user("2?")]}).turns == (user("2?"),)


def test_null_keys_of_a_message_are_no_keys():
    absent = dict.fromkeys(("tool_calls", "refusal", "function_call", "audio", "annotations", "weight"))
    first = {"role": "assistant", "content": "1", **absent}
    assert problem_of({"messages": [first, user("2?", name=None)]}).turns == (
        {"role": "assistant", "content": "1"},
        user("2?"),
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (user(""), "content is not text: ''"),
        (user(None), "content is not text"),
        (user([]), "content is not text"),
        (user(7), "content is not text: 7"),
        (user([{"type": "text", "text": None}]), "content is not text: None"),
        (user("half a pair \ud800"), "content is not valid Unicode"),
        (user("2?", weight=1), "a message's weight cannot be honoured: 1"),
        (user("2?", tool_calls=[]), "a message's tool_calls cannot be honoured"),
    ],
)
def test_what_is_wrong_with_a_message_is_told_by_its_key(message, reason):
    for turns in ([message], [user("1?"), message, user("2?")]):
        with pytest.raises(ValueError, match=reason):
            problem_of({"messages": turns})


def test_equal_rows_are_used_once_and_bad_ones_put_aside_with_their_line(tmp_path):
    bad = {"messages": [{"role": "user", "content": "2 + 2?"}], "tools": [{"type": "function"}]}
    other = {**ROWS[1], "answer": {"value": 0}}
    aside = pool(tmp_path, [*ROWS, ROWS[0], bad, other]) / "quarantine.jsonl"
    reasons = {row["line"]: row["reason"] for row in map(json.loads, aside.read_text().splitlines())}
    assert len(reasons) == 2
    assert any(line in (1, 7) and "same messages and item" in reason for line, reason in reasons.items())
    assert reasons[8].startswith("tools cannot be honoured")
