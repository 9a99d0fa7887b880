"""Typed rows that flow between the stages, and their JSONL files.

A `Record` is a picture with its labels (boxes in pixels of that picture), or a problem in words. A `Question` is what
a model is asked: one picture or text, and one task. Its gold boxes are in thousandths of the picture's sides, so that a
grader needs no sizes.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image


class DataError(ValueError):
    """A data file that cannot be used as a whole; the message names the file, the value and the fix."""


Box = tuple[float, float, float, float]  # x1, y1, x2, y2 with x1 < x2 and y1 < y2
STRIP = 4_000_000  # pixels hashed at a time, so that a large picture is not copied as a whole
TextTask = Literal["maths", "program", "ranking", "job"]
Task = Literal["detection", "classification", "grounding", TextTask]


@dataclass(frozen=True)
class Object:
    """A labelled object; `box` is in pixels."""

    category: str
    box: Box


@dataclass(frozen=True)
class Shape:
    """A polygon of a mask. What is inside an `ignore`d one counts neither as target nor as background."""

    points: tuple[tuple[float, float], ...]
    ignore: bool = False


@dataclass(frozen=True)
class Referring:
    """An instruction that one region of the picture answers ('the cup that is full'); `box` and `mask` are in pixels.

    `category` is the kind of instruction, where the source knows kinds (LISA: 'sentence' or 'phrase'); `mask` is empty
    where it knows boxes only.
    """

    instruction: str
    box: Box
    category: str | None = None
    mask: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A question in words. `answer` is what a grader compares with: a number or a letter (maths, program) or a name
    (ranking), after which SFT is taught to state the `others`.

    `chains` are worked solutions that SFT is to teach: thoughts, or the programs themselves. `category` is the kind of
    problem, where the source knows kinds.

    A row of an imported job has no answer but an `item`, which its grader reads, and `turns`, the chat messages to send
    ({"role", "content"}); `text` is these in one text.
    """

    task: TextTask
    text: str
    answer: str
    chains: tuple[str, ...] = ()
    category: str | None = None
    turns: tuple[dict[str, str], ...] = ()
    item: dict | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """A picture, or a `problem` without one: then `image` is None and the sides are 0. `image` is relative to the
    pool's folder; `pixel_hash` is of the decoded RGB pixels and the size, of the problem's words, or of a job's
    row.

    `objects` are for detection, `label` (the class of the whole picture) for classification, `referring` for grounding.
    `ignore` holds regions that are not asked for (COCO crowds, VOC 'difficult'). Training does not ask their categories
    in that picture at all; in grading a box there is neither right nor wrong.
    `negative` are categories verified to be absent, `not_exhaustive` those of which only some objects are labelled.
    Of a `federated` picture (LVIS) nothing is known of the categories that it neither shows nor has as negative; any
    other picture shows no category but its own.
    """

    id: str
    image: str | None
    width: int
    height: int
    pixel_hash: str
    objects: tuple[Object, ...] = ()
    label: str | None = None
    referring: tuple[Referring, ...] = ()
    ignore: tuple[Object, ...] = ()
    negative: tuple[str, ...] = ()
    not_exhaustive: tuple[str, ...] = ()
    federated: bool = False
    problem: Problem | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories present, each once, in reading order (left to right)."""
        return tuple(dict.fromkeys(o.category for o in sorted(self.objects, key=lambda o: o.box)))


@dataclass(frozen=True)
class Question:
    """What a model is asked, and the gold answer.

    detection: `asked` is a category, `boxes` all its objects in thousandths (0..1000), () = none there; `ignore` are
    regions where a box is neither right nor wrong, and without `exhaustive` neither is one that matches nothing;
    grounding: `asked` is an instruction, `boxes` holds the one box, `mask` its outlines in thousandths, if known;
    classification: `asked` is '', `label` the class;
    maths, program, ranking: `asked` is the problem, `label` its answer, of a ranking the right name, before the
    `others` of an SFT target; job: `turns` are sent, `item` is graded with.
    `thoughts` are the thinking of SFT targets, one each: what the picture shows, or the worked solutions (of a program:
    the program).
    """

    record_id: str
    image: str | None
    task: Task
    asked: str
    boxes: tuple[Box, ...] = ()
    label: str | None = None
    thoughts: tuple[str, ...] = ("",)
    turns: tuple[dict[str, str], ...] = field(default=(), hash=False)
    item: dict | None = field(default=None, hash=False)
    ignore: tuple[Box, ...] = ()
    exhaustive: bool = True
    mask: tuple[Shape, ...] = ()
    others: tuple[str, ...] = ()


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the RGB pixels with the size, so that a re-encoded copy of the same picture has the same hash."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode())
    rows = max(1, STRIP // rgb.width)
    for top in range(0, rgb.height, rows):
        digest.update(rgb.crop((0, top, rgb.width, min(top + rows, rgb.height))).tobytes())
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of the words, whatever their case, spacing and Unicode form: the `pixel_hash` of a problem."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()).hexdigest()


def json_hash(value: object) -> str:
    """SHA-256 of a JSON value, exact but for the order of keys: the `pixel_hash` of an imported job's row."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_jsonl(path: Path, rows: Iterable) -> None:
    """Write dataclass instances (or dicts) one a line. Half a surrogate pair, which a broken file may hold, becomes its
    JSON escape.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=vars) + "\n")


def read_jsonl(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _objects(rows: list[dict]) -> tuple[Object, ...]:
    return tuple(Object(o["category"], tuple(o["box"])) for o in rows)


def _mask(rows: list[dict]) -> tuple[Shape, ...]:
    return tuple(Shape(tuple(map(tuple, shape["points"])), shape["ignore"]) for shape in rows)


def _problem(row: dict) -> Problem:
    return Problem(**{**row, **{name: tuple(row[name]) for name in ("chains", "turns", "others")}})


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL file that `tasks.prepare` wrote."""
    return [
        Record(
            **{
                **row,
                "objects": _objects(row["objects"]),
                "referring": tuple(
                    Referring(**{**r, "box": tuple(r["box"]), "mask": _mask(r["mask"])}) for r in row["referring"]
                ),
                "ignore": _objects(row["ignore"]),
                "negative": tuple(row["negative"]),
                "not_exhaustive": tuple(row["not_exhaustive"]),
                "problem": _problem(row["problem"]) if row["problem"] else None,
            }
        )
        for row in read_jsonl(path)
    ]


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSONL file that `tasks.slice` wrote."""
    boxes, lists = ("boxes", "ignore"), ("thoughts", "turns", "others")
    return [
        Question(
            **{
                **row,
                **{name: tuple(map(tuple, row[name])) for name in boxes},
                **{name: tuple(row[name]) for name in lists},
                "mask": _mask(row["mask"]),
            }
        )
        for row in read_jsonl(path)
    ]
