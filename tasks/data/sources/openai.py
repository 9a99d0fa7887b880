"""Rows of OpenAI's reinforcement fine-tuning, UTF-8, one a line (developers.openai.com, fine_tuning, reinforcement
input).

    {"messages": [{"role": "developer", "content": "..."}, {"role": "user", "content": "..."}], "answer": "7"}

The last message is the user's. Every key but `messages` and `tools` belongs to the grader's `item`. Tools, pictures and
sound cannot be honoured: such a line is put aside with its reason. Null keys of a message, which clients write for what
it does not have, are no keys.
"""

from pathlib import Path

from tasks.data.drafts import Reading, existing, short, text_fault
from tasks.data.records import Problem
from tasks.data.sources.lines import read_problem_rows
from tasks.schema.dataset import OpenaiFiles

ROLES = ("system", "developer", "user", "assistant")
SYSTEM = ("system", "developer")
TURN = {"role", "content", "name"}  # `name` tells people of one role apart, and no chat template asks for it


def _content(content: object) -> str:
    """A text, or parts that are text alone."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"content that is no text cannot be honoured: {short(kind)}")
        if not isinstance(part.get("text"), str):
            raise ValueError(text_fault(part.get("text"), "content"))
    return "".join(part["text"] for part in parts)


def _turn(message: object) -> dict[str, str] | None:
    """The turn to send; None for a system message that says nothing. What is null in a message is not there."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        role = message.get("role") if isinstance(message, dict) else message
        raise ValueError(f"role is none of {', '.join(ROLES)}: {short(role)}")
    if unknown := sorted(key for key in message.keys() - TURN if message[key] is not None):
        raise ValueError(f"a message's {unknown[0]} cannot be honoured: {short(message[unknown[0]])}")
    content = "" if message.get("content") is None else _content(message["content"])
    if message["role"] in SYSTEM and not content.strip():
        return None
    if fault := text_fault(content, "content"):
        raise ValueError(fault)
    return {"role": message["role"], "content": content}


def problem_of(row: object) -> Problem:
    """A row as a problem without an answer; ValueError with the reason where it cannot be honoured."""
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {short(row)}")
    if row.get("tools"):
        raise ValueError(f"tools cannot be honoured: {short(row['tools'])}")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages is not a list of messages: {short(messages)}")
    turns = tuple(filter(None, map(_turn, messages)))
    if not turns or turns[-1]["role"] != "user":
        raise ValueError(f"the last message is not the user's: {short(messages[-1]['role'])}")
    if len(turns) == 1:
        text = turns[0]["content"]
    else:
        text = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    item = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    return Problem("job", text, "", turns=turns, item=item)


def read_openai(files: OpenaiFiles, scratch: Path) -> Reading:
    path = existing(Path(files.rows), "file", "give the .jsonl as `rows`")
    return read_problem_rows(path, "row", problem_of)
