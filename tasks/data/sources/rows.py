"""Rows of the `datasets` library: Visual-RFT's own, and any other set by a map of its columns.

Visual-RFT's rows (arXiv 2503.01785; laolao77/ViRFT_*) are `image`, `problem` and `solution`. The task shows in the
form of the solution, and what was asked stands in the problem:

    <answer>[{'Position': [x1, y1, x2, y2], 'Confidence': 1}]</answer>   detection of the category '...'
    <answer>No Objects</answer>                                          detection: the category is not there
    <answer>(x1,y1),(x2,y2)</answer>                                     grounding of the instruction: ...
    <answer>name</answer>                                                classification

Boxes are in thousandths. Rows about one picture become one record. A picture is labelled for the categories of its rows
only, so a 'No Objects' becomes `negative`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError

from tasks.data.drafts import Draft, Reading, Region, existing, short
from tasks.data.records import DataError
from tasks.schema.dataset import HfFiles, RowsFiles

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
CATEGORY = re.compile(r"category ['\u2018\u2019](.+?)['\u2018\u2019](?= in the image)")
INSTRUCTION = re.compile(r"corresponding to the instruction:\s*(.+?)\.?\s*Output ", re.DOTALL)
POSITION = re.compile(r"['\"]Position['\"]\s*:\s*\[([^\]]*)\]")
POINTS = re.compile(r"\(([^(),]+),([^(),]+)\)\s*,\s*\(([^(),]+),([^(),]+)\)")
MAX_SOLUTION = 100_000  # characters
UNLOADABLE = (DatasetsError, OSError, ValueError, KeyError, TypeError)


def load(path: str, split: str, name: str | None, revision: str | None, scratch: Path) -> datasets.Dataset:
    """A split from a `save_to_disk` folder, parquet, a local folder or the hub; DataError if there is none."""
    local, cache = Path(path), str(scratch / "cache")
    try:
        if (local / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)[split]
        if (local / "state.json").is_file():
            return datasets.load_from_disk(path)
        if local.suffix == ".parquet":
            existing(local, "file", "give a parquet file, a folder or a hub id")
            return datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=cache)
        if local.is_dir():
            return datasets.load_dataset(path, name, split=split, cache_dir=cache)
        return datasets.load_dataset(path, name, split=split, revision=revision)
    except UNLOADABLE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{path}: split {split!r} cannot be loaded ({reason}); check path, name and split") from None


def _with_bytes(rows: datasets.Dataset, column: str, path: str) -> datasets.Dataset:
    """The rows with the pictures as the bytes of their files, not decoded."""
    if column not in rows.column_names:
        raise DataError(f"{path}: no column {column!r}; it has {rows.column_names}")
    if isinstance(rows.features[column], datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _save(cell: object, number: int, scratch: Path) -> str:
    """Write a row's picture into `scratch`; returns its name. ValueError with the reason."""
    if isinstance(cell, dict) and cell.get("bytes") is None and isinstance(cell.get("path"), str):
        cell = {"bytes": Path(cell["path"]).read_bytes()}
    raw = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(raw, bytes):
        raise ValueError(f"no picture in the row: {short(cell)}")
    (scratch / f"row{number:07d}").write_bytes(raw)
    return f"row{number:07d}"


def _reading(rows: datasets.Dataset, image: str, path: str, scratch: Path, draft_of: Callable) -> Reading:
    """A draft a row; `draft_of(row, number, picture)` raises ValueError with the reason where there is none."""
    reading = Reading(scratch, by_pixels=True)
    for number, row in enumerate(_with_bytes(rows, image, path)):
        try:
            reading.add(draft_of(row, number, _save(row[image], number, scratch)))
        except (ValueError, OSError) as error:
            reading.refuse(Path(path), "image", f"row {number}", str(error))
    if not reading.read:
        raise DataError(f"{path}: no rows; check its split")
    return reading


def _found(pattern: re.Pattern, problem: str, what: str) -> str:
    match = pattern.search(problem)
    if match is None:
        raise ValueError(f"no {what} in the problem: {short(problem)}")
    return match.group(1).strip()


def _numbers(texts: Iterator[str]) -> list[float] | None:
    """The numbers; None where one is none, which the check of boxes then says."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None


def visual_rft_draft(row: dict, number: int, picture: str, path: str) -> Draft:
    """The draft of one of Visual-RFT's rows; ValueError with the reason where its form is none of the four."""
    problem, solution, item = row["problem"], row["solution"], f"row {number}"
    if not isinstance(problem, str) or not isinstance(solution, str) or len(solution) > MAX_SOLUTION:
        raise ValueError(f"problem or solution is not text: {short(problem)}, {short(solution)}")
    match = ANSWER.search(solution)
    answer = (match.group(1) if match else solution).strip()
    if answer.lower() == "no objects":
        return Draft(item, picture, path, negative=(_found(CATEGORY, problem, "category"),), federated=True)
    if "Position" in answer:
        boxes = [_numbers(iter(text.split(","))) for text in POSITION.findall(answer)]
        if len(boxes) != answer.count("Position"):
            raise ValueError(f"unreadable solution: {short(answer)}")
        category = _found(CATEGORY, problem, "category")
        regions = tuple(Region(f"{item} box {n}", category, box) for n, box in enumerate(boxes, start=1))
        return Draft(item, picture, path, objects=regions, federated=True, side=1000.0)
    if points := POINTS.fullmatch(answer):
        region = Region(item, _found(INSTRUCTION, problem, "instruction"), _numbers(iter(points.groups())))
        return Draft(item, picture, path, referring=(region,), side=1000.0)
    if not answer or answer[0] in "[{(":
        raise ValueError(f"unreadable solution: {short(answer)}")
    return Draft(item, picture, path, label=answer)


def read_visual_rft(files: RowsFiles, scratch: Path) -> Reading:
    rows = load(files.rows, files.split, None, None, scratch)
    if missing := {"image", "problem", "solution"} - set(rows.column_names):
        raise DataError(f"{files.rows}: no column {sorted(missing)}; Visual-RFT's rows are image, problem, solution")
    return _reading(
        rows, "image", files.rows, scratch, lambda row, n, picture: visual_rft_draft(row, n, picture, files.rows)
    )


def _class_names(feature: object) -> list[str] | None:
    """The names of a ClassLabel, also inside a list."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature.names if isinstance(feature, datasets.ClassLabel) else None


def _named(value: object, names: list[str] | None) -> object:
    if names is None or value is None:
        return value
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise ValueError(f"no name for class: {short(value)}")
    return names[value]


def _hf_objects(cell: object, files: HfFiles, names: list[str] | None, item: str) -> tuple[Region, ...]:
    """Regions of {'bbox': [...], 'category': [...]} or of a list of {'bbox': ..., 'category': ...}."""
    try:
        if isinstance(cell, dict):
            pairs = list(zip(cell[files.category], cell[files.bbox], strict=True))
        else:
            pairs = [(o[files.category], o[files.bbox]) for o in cell]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no {files.category} and {files.bbox} for each object: {error!r}") from None
    return tuple(Region(f"{item} object {n}", _named(c, names), box) for n, (c, box) in enumerate(pairs, start=1))


def _object_names(rows: datasets.Dataset, files: HfFiles) -> list[str] | None:
    feature = rows.features[files.objects]
    while hasattr(feature, "feature") and not isinstance(feature, dict):
        feature = feature.feature
    return _class_names(feature.get(files.category)) if isinstance(feature, dict) else None


def read_hf(files: HfFiles, scratch: Path) -> Reading:
    rows = load(files.path, files.split, files.name, files.revision, scratch)
    asked = [c for c in (files.label, files.objects, files.instruction) if c]
    if missing := set(asked) - set(rows.column_names) or (not asked and {"label, objects or instruction"}):
        raise DataError(f"{files.path}: no column {sorted(missing)} given that exists; it has {rows.column_names}")
    labels = _class_names(rows.features[files.label]) if files.label else None
    categories = _object_names(rows, files) if files.objects else None

    def draft(row: dict, number: int, picture: str) -> Draft:
        item = f"row {number}"
        label = _named(row[files.label], labels) if files.label else None
        if files.label and label is None:
            raise ValueError("no label: None")
        objects = _hf_objects(row[files.objects], files, categories, item) if files.objects else ()
        told = (Region(item, row[files.instruction], row.get(files.box)),) if files.instruction else ()
        return Draft(item, picture, files.path, objects=objects, referring=told, label=label, form=files.box_format)

    return _reading(rows, files.image, files.path, scratch, draft)
