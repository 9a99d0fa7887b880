"""What a reader of one format yields: pictures as their file describes them, before anything is checked or decoded.

A reader only understands its format. Names, boxes and pictures are checked once for all formats, in
`tasks.data.ingest`.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from tasks.data.records import DataError, Problem
from tasks.schema.base import Section

Form = Literal["xyxy", "xywh", "cxcywh"]  # two corners; top left and size; centre and size


@dataclass(frozen=True)
class Quarantined:
    """An item that is not used. `kind` is 'image', 'problem', 'annotation' or 'category', `item` its id in `file`,
    `line` its line (from 1) where the format has lines. `reason` is 'fault: value'.
    """

    file: str
    kind: str
    item: str
    reason: str
    line: int | None = None

    @property
    def fault(self) -> str:
        """The reason without the value, to count by."""
        return self.reason.split(":")[0]


@dataclass(frozen=True, slots=True)
class Region:
    """A labelled region, unchecked. `name` is a category, or an instruction of the kind `category`; `mask` are the
    points of polygons, in the unit of the box, each with whether it is to be ignored.
    """

    item: str
    name: object
    box: object
    line: int | None = None
    category: str | None = None
    mask: tuple[tuple[object, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A picture, or a `problem` without one (`image` is None), unchecked.

    `image` is relative to the reading's root. Boxes are in the form `form`, in pixels or, with `side`, in units of
    which a side of the picture has so many (YOLO 1, Visual-RFT 1000). `size` is the width and height that the file
    claims. The other fields are those of `Record`.
    """

    item: str
    image: object
    file: str
    line: int | None = None
    objects: tuple[Region, ...] = ()
    ignore: tuple[Region, ...] = ()
    referring: tuple[Region, ...] = ()
    label: object = None
    negative: tuple[str, ...] = ()
    not_exhaustive: tuple[str, ...] = ()
    federated: bool = False
    problem: Problem | None = None
    form: Form = "xyxy"
    side: float | None = None
    size: tuple[object, object] | None = None

    @property
    def kind(self) -> str:
        return "image" if self.problem is None else "problem"

    @property
    def regions(self) -> tuple[Region, ...]:
        return (*self.objects, *self.ignore, *self.referring)


@dataclass
class Reading:
    """All that a reader found below the folder `root`. `read` counts every item by its kind; `by_pixels` says that
    several rows may be about one picture and belong together; `frequency` is LVIS's f, c or r of each category.
    """

    root: Path
    drafts: list[Draft] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    read: Counter = field(default_factory=Counter)
    by_pixels: bool = False
    frequency: dict[str, str] = field(default_factory=dict)

    def add(self, draft: Draft) -> None:
        self.drafts.append(draft)
        self.read.update({draft.kind: 1, "annotation": len(draft.regions)})

    def refuse(self, file: Path, kind: str, item: object, reason: str, line: int | None = None) -> None:
        self.aside.append(Quarantined(str(file), kind, str(item), reason, line))
        self.read[kind] += 1


class Reader(Protocol):
    """`files` is the source's section of one split; `scratch` an empty folder, for pictures that are no files yet.

    Raises DataError where a file cannot be used as a whole.
    """

    def __call__(self, files: Section, scratch: Path) -> Reading: ...


def short(value: object) -> str:
    """`value` for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def existing(path: Path, kind: Literal["file", "folder"], fix: str) -> Path:
    """`path`, or a DataError if there is no such file (folder)."""
    if not (path.is_file() if kind == "file" else path.is_dir()):
        raise DataError(f"{path}: no such {kind}; {fix}")
    return path


def read_text(path: Path, fix: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; DataError otherwise."""
    try:
        return existing(path, "file", fix).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it readable") from None


def parse_json(text: str, without: str | None = None) -> object:
    """The value of a JSON text; ValueError with the reason also where it is too deep or a key stands twice. The key
    `without` is dropped from every object while parsing, so that its values take no memory.
    """

    def unique_keys(pairs: list[tuple[str, object]]) -> dict:
        row = dict(pairs)
        if len(row) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"key stands twice: {twice!r}")
        row.pop(without, None)
        return row

    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def text_fault(value: object, what: str = "name") -> str | None:
    """Why `value` cannot be a name or an instruction (`what` it is called), or None."""
    if not isinstance(value, str) or not value.strip():
        return f"{what} is not text: {short(value)}"
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"{what} is not valid Unicode: {short(value)}"
    return None
