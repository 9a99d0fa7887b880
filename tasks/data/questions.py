"""What a model is asked about a picture, and the chat messages that ask it."""

import hashlib
from collections.abc import Collection, Sequence

from tasks.data.records import Box, Question, Record
from tasks.params import Prompt


def rank(*parts: object) -> str:
    """A hash to sort by: the same on every machine, whatever the order of the file."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def describe(objects: Sequence[tuple[str, Box]], picked: Collection[Box], asked: str) -> str:
    """The scene in words from left to right, then what was asked for: 'two [134, 18], six [179, 384]; six [179, 384]'.

    Top-left corners, in thousandths. This is the thinking of an SFT target; it ends in '; No six' where none is picked.
    """
    ordered = sorted(objects, key=lambda o: (o[1], o[0]))
    places = [(box, f"{category} [{round(box[0])}, {round(box[1])}]") for category, box in ordered]
    found = [place for box, place in places if box in picked] or [f"No {asked}"]
    return f"{', '.join(place for _, place in places)}; {', '.join(found)}"


def question(record: Record, category: str) -> Question:
    """Gold boxes in thousandths of the picture's sides, in reading order."""
    width, height = record.width, record.height
    objects = [
        (o.category, (1000 * x1 / width, 1000 * y1 / height, 1000 * x2 / width, 1000 * y2 / height))
        for o in sorted(record.objects, key=lambda o: o.box)
        for x1, y1, x2, y2 in [o.box]
    ]
    boxes = tuple(box for name, box in objects if name == category)
    return Question(record.id, record.image, "detection", category, boxes, thought=describe(objects, boxes, category))


def absent(record: Record, categories: Sequence[str], num: int) -> list[str]:
    """`num` categories that the picture does not show, chosen by its pixel hash."""
    missing = [c for c in categories if c not in record.categories]
    return sorted(missing, key=lambda c: rank("absent", record.pixel_hash, c))[:num]


def ask(records: Sequence[Record], categories: Sequence[str], num_absent: int) -> list[Question]:
    """For each picture, a question for every category that it shows and for `num_absent` that it does not."""
    return [question(r, c) for r in records for c in [*r.categories, *absent(r, categories, num_absent)]]


def fill(prompt: Prompt, question: Question) -> str:
    """The prompt of the question's task with {asked} replaced; other braces are literal."""
    return getattr(prompt, question.task).replace("{asked}", question.asked)


def messages(prompt: Prompt, question: Question) -> list[dict]:
    """The user turn: the picture, then the prompt of the question's task."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": fill(prompt, question)}]}]
