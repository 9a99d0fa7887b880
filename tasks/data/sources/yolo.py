"""YOLO text labels (Darknet, Ultralytics): for a/b.jpg a file a/b.txt below `labels`, a line an object:

<class number from 0> <centre x> <centre y> <width> <height>      as shares of the picture's sides
<class number from 0> <x1> <y1> <x2> <y2> <x3> <y3> ...            a polygon: its bounding box is taken
"""

from pathlib import Path

import yaml

from tasks.data.drafts import Draft, Reading, Region, existing, read_text, short
from tasks.data.records import DataError
from tasks.schema.dataset import YoloFiles

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # the last ones get quarantined by name


def _names(path: Path) -> dict[int, str]:
    """Class number -> name, from data.yaml or a .txt."""
    text = read_text(path, "give data.yaml, or a .txt with a name a line, as `names`")
    if path.suffix == ".txt":
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        names = yaml.safe_load(text)["names"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no 'names' in it ({error!r}); a data.yaml lists the classes under names:") from None
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(named, dict) or not all(type(k) is int and isinstance(v, str) for k, v in named.items()):
        raise DataError(f"{path}: names is {short(names)}; give a list of texts, or a map from number to text")
    if len(set(named.values())) != len(named):
        raise DataError(f"{path}: a name stands twice in {short(names)}; give each class its own")
    return named


def _region(line: str, number: int, names: dict[int, str]) -> Region | str:
    """A line's region (centre and size, shares), or the reason why there is none."""
    try:
        category, values = int(line.split()[0]), [float(word) for word in line.split()[1:]]
    except ValueError:
        return f"not a class number and shares: {short(line)}"
    if category not in names:
        return f"no such category: {category}"
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        values = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    return Region(f"line {number}", names[category], values, number)


def _draft(reading: Reading, image: str, label: Path, names: dict[int, str]) -> Draft:
    regions = []
    lines = read_text(label, "").splitlines() if label.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        region = _region(line, number, names)
        if isinstance(region, str):
            reading.refuse(label, "annotation", f"line {number}", region, number)
        else:
            regions.append(region)
    return Draft(image, image, str(label), objects=tuple(regions), form="cxcywh", side=1.0)


def read_yolo(files: YoloFiles, scratch: Path) -> Reading:
    images = existing(Path(files.images), "folder", "give the folder of the pictures as `images`")
    labels = existing(Path(files.labels), "folder", "give the folder of the .txt files as `labels`")
    names, reading = _names(Path(files.names)), Reading(images)
    pictures = sorted(p.relative_to(images) for p in images.rglob("*") if p.suffix.lower() in PICTURES)
    for name in pictures:
        label = labels / name.with_suffix(".txt")
        try:
            reading.add(_draft(reading, name.as_posix(), label, names))
        except DataError as error:
            reading.refuse(label, "image", name.as_posix(), f"unreadable labels: {error}")
    stems = {name.with_suffix("") for name in pictures}
    for label in sorted(labels.rglob("*.txt")):
        relative = label.relative_to(labels)
        if relative.with_suffix("") not in stems and label.resolve() != Path(files.names).resolve():
            reading.refuse(label, "image", relative.as_posix(), f"no such picture: {relative.with_suffix('')}")
    return reading
