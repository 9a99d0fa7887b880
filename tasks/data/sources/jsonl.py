"""Our own rows, UTF-8, one picture a line:

    {"image": "a.jpg",                                         path below `images`; all other keys are optional
     "objects": [{"category": "cat", "box": [x1, y1, x2, y2]}],  detection; [] = the picture shows none
     "label": "tabby",                                         classification
     "referring": [{"instruction": "the cat that sleeps", "box": [x1, y1, x2, y2], "category": "pets",    grounding
                    "mask": [[[x, y], [x, y], [x, y]]]}],      polygons
     "ignore": [{"category": "cat", "box": [...]}],            crowds: never asked for
     "negative": ["dog"], "not_exhaustive": ["cat"],           as in LVIS
     "unit": "pixels",                                         or "thousandths" of the picture's sides
     "size": [640, 480]}                                       checked against the picture

A line with an unknown key is put aside, since a typo would otherwise hide labels.
"""

from pathlib import Path

from tasks.data.drafts import Draft, Reading, Region, existing, short, text_fault
from tasks.data.sources.lines import read_rows
from tasks.schema.dataset import JsonlFiles

LISTS = ("objects", "referring", "ignore", "negative", "not_exhaustive")
KEYS = {"image", "label", "unit", "size", *LISTS}
UNITS = {"pixels": None, "thousandths": 1000.0}


def _regions(row: dict, key: str, line: int) -> tuple[Region, ...]:
    name, keys = ("instruction" if key == "referring" else "category"), {"category", "instruction", "box"}
    keys |= {"mask"} if key == "referring" else set()
    regions = []
    for number, item in enumerate(row.get(key, []), start=1):
        if not isinstance(item, dict) or not item.keys() <= keys:
            raise ValueError(f"{key} holds no object of {name} and box: {short(item)}")
        kind = item.get("category") if key == "referring" else None
        if kind is not None and (fault := text_fault(kind)):
            raise ValueError(fault)
        polygons = item.get("mask", [])
        if not isinstance(polygons, list):
            raise ValueError(f"mask is not a list of polygons: {short(polygons)}")
        mask = tuple((points, False) for points in polygons)
        regions.append(Region(f"line {line} {key} {number}", item.get(name), item.get("box"), line, kind, mask))
    return tuple(regions)


def _draft(row: object, path: Path, line: int) -> Draft:
    """The draft of a line's value; ValueError with the reason."""
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {short(row)}")
    if unknown := sorted(row.keys() - KEYS):
        raise ValueError(f"unknown key: {short(unknown[0])}; known are {', '.join(sorted(KEYS))}")
    if "image" not in row:
        raise ValueError("no key: 'image'")
    if not row.keys() & {"objects", "label", "referring"}:
        raise ValueError("no labels: give objects ([] = the picture shows none), label or referring")
    for key in LISTS:
        if not isinstance(row.get(key, []), list):
            raise ValueError(f"{key} is not a list: {short(row[key])}")
    for name in (*row.get("negative", []), *row.get("not_exhaustive", [])):
        if fault := text_fault(name):
            raise ValueError(fault)
    unit, size = row.get("unit", "pixels"), row.get("size")
    if not isinstance(unit, str) or unit not in UNITS:
        raise ValueError(f"unit is neither pixels nor thousandths: {short(unit)}")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(type(s) is int for s in size)):
        raise ValueError(f"size is not two whole numbers: {short(size)}")
    return Draft(
        f"line {line}", row["image"], str(path), line, _regions(row, "objects", line), _regions(row, "ignore", line),
        _regions(row, "referring", line), row.get("label"), tuple(row.get("negative", [])),
        tuple(row.get("not_exhaustive", [])), side=UNITS[unit], size=tuple(size) if size else None,
    )  # fmt: skip


def read_jsonl_rows(files: JsonlFiles, scratch: Path) -> Reading:
    path = existing(Path(files.rows), "file", "give the .jsonl as `rows`")
    root = existing(Path(files.images), "folder", "give the folder of the pictures as `images`")
    return read_rows(path, root, "image", "picture", _draft)
