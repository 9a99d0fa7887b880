"""LISA's ReasonSeg (https://github.com/dvlab-research/LISA): beside each name.jpg a name.json with

    text         one or several instructions
    is_sentence  whether they are sentences (they are phrases otherwise)
    shapes       polygons with a `label`: target, ignore or flag

Each instruction is one question. Its box is the bounding box of the first target, as in Visual-RFT; its mask all
targets and what is to be ignored. `Referring.category` is 'sentence' or 'phrase'.
"""

from pathlib import Path

from tasks.data.drafts import Draft, Reading, Region, existing, parse_json, short
from tasks.data.records import DataError
from tasks.schema.dataset import LisaFiles

MAX_BYTES = 16_000_000


def _annotation(path: Path) -> dict:
    """The JSON of a picture; some of the official files are Windows-1252. ValueError with the reason."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes: {path.name}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    row = parse_json(text)
    if not isinstance(row, dict) or not isinstance(row.get("shapes"), list):
        raise ValueError(f"no list 'shapes': {short(row)}")
    return row


def _bounds(points: object) -> list[float] | None:
    """The bounding box of a polygon; None if it is none."""
    try:
        xs, ys = zip(*((float(x), float(y)) for x, y in points), strict=True)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return None
    return [min(xs), min(ys), max(xs), max(ys)]


def _draft(image: Path, file: Path) -> Draft:
    row = _annotation(file)
    shapes = [(s.get("points"), str(s.get("label")).lower()) for s in row["shapes"] if isinstance(s, dict)]
    targets = [points for points, label in shapes if label == "target"]
    if not targets:
        raise ValueError(f"no shape 'target' among {len(row['shapes'])}")
    box = _bounds(targets[0])
    mask = tuple((points, "ignore" in label) for points, label in shapes if label == "target" or "ignore" in label)
    texts = row["text"] if isinstance(row.get("text"), list) else [row.get("text")]
    kind = "sentence" if row.get("is_sentence") else "phrase"
    own = {"category": kind, "mask": mask}
    regions = tuple(Region(f"{file.stem} text {n}", text, box, **own) for n, text in enumerate(texts, start=1))
    return Draft(file.stem, image.name, str(file), referring=regions)


def read_lisa(files: LisaFiles, scratch: Path) -> Reading:
    root = existing(Path(files.images), "folder", "give a folder of ReasonSeg (train, val or test) as `images`")
    reading = Reading(root)
    annotations = sorted(root.glob("*.json"))
    if not annotations:
        raise DataError(f"{root}: no .json file; give a folder of ReasonSeg (train, val or test)")
    for file in annotations:
        try:
            reading.add(_draft(file.with_suffix(".jpg"), file))
        except (ValueError, OSError) as error:
            reading.refuse(file, "image", file.stem, f"unusable annotation: {error}")
    known = {file.stem for file in annotations}
    for image in sorted(root.glob("*.jpg")):
        if image.stem not in known:
            reading.refuse(image, "image", image.stem, "picture without annotation: no .json of its name")
    return reading
