"""Reader of COCO instances files: used + quarantined = read, always.

A fault of the file as a whole (duplicate ids, no JSON) raises; a fault of one item quarantines that item with its
reason. Boxes are clipped to the picture, crowd regions left out, EXIF rotation applied, alpha laid over white.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from tasks.data.records import Box, Object, Record, pixel_hash

MAX_PIXELS = 50_000_000  # a larger header is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class CocoSplit:
    annotations: Path
    images: Path


@dataclass(frozen=True)
class Quarantined:
    """An item that is not used: `kind` is 'image' or 'annotation', `item` its id in `file`."""

    file: str
    kind: str
    item: str
    reason: str


@dataclass(frozen=True)
class Picture:
    """A record with its decoded pixels' source path, before it is copied into a pool."""

    record: Record
    source: Path


class DataError(ValueError):
    """A data file that cannot be used as a whole; the message names the file, the value and the fix."""


def _load(path: Path) -> dict:
    try:
        coco = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the COCO instances JSON as dataset.*.annotations") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco.get(key) if isinstance(coco, dict) else None, list):
            raise DataError(f"{path}: no list '{key}'; a COCO instances file has images, annotations and categories")
        ids = [item.get("id") for item in coco[key]]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(
                f"{path}: id {twice!r} stands twice in '{key}'; ids must be unique (the last would win in silence)"
            )
    return coco


def clip_box(bbox: object, width: int, height: int) -> Box | str:
    """COCO's [x, y, width, height] as x1, y1, x2, y2 inside the picture, or the reason why there is none."""
    try:
        x, y, w, h = (float(value) for value in bbox)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return f"bbox is not four numbers: {bbox!r}"
    if not (w > 0 and h > 0):  # NaN too
        return f"box without area: {bbox!r}"
    x1, y1, x2, y2 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if not (x1 < x2 and y1 < y2):
        return f"box outside the {width}x{height} picture: {bbox!r}"
    return (x1, y1, x2, y2)


def decode(root: Path, name: str) -> Image.Image:
    """The upright RGB picture; raises ValueError with the reason if it must not or cannot be read."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"path leaves the data folder: {name!r}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is over {MAX_PIXELS} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return upright.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"unreadable picture: {error}") from None


def _sort_annotations(coco: dict, file: str) -> tuple[dict[object, list[dict]], list[Quarantined]]:
    """Annotations by image id, and those that point nowhere or mark a crowd."""
    images = {image["id"] for image in coco["images"]}
    names = {category["id"] for category in coco["categories"]}
    by_image, aside = defaultdict(list), []
    for annotation in coco["annotations"]:
        if annotation.get("image_id") not in images:
            reason = f"no image {annotation.get('image_id')!r}"
        elif annotation.get("category_id") not in names:
            reason = f"no category {annotation.get('category_id')!r}"
        elif annotation.get("iscrowd"):
            reason = "crowd region: not an object to point at"
        else:
            by_image[annotation["image_id"]].append(annotation)
            continue
        aside.append(Quarantined(file, "annotation", str(annotation["id"]), reason))
    return by_image, aside


def read_coco(split: CocoSplit, categories: Collection[str] | None) -> tuple[list[Picture], list[Quarantined]]:
    """All pictures with their usable objects, and everything that was put aside.

    With `categories`, only the pictures that show one of them and only their objects: the rest is not even decoded.
    """
    coco, file = _load(split.annotations), str(split.annotations)
    names = {c["id"]: c["name"] for c in coco["categories"]}
    if missing := set(categories or ()) - set(names.values()):
        raise DataError(f"{file}: no category {sorted(missing)}; it has {sorted(names.values())}")
    by_image, aside = _sort_annotations(coco, file)
    pictures = []
    for image in tqdm(coco["images"], desc=f"read {split.annotations.name}", disable=None):
        if categories is not None:
            wanted = [a for a in by_image[image["id"]] if names[a["category_id"]] in categories]
            if not wanted:
                continue
            by_image[image["id"]] = wanted
        try:
            pixels = decode(split.images, str(image.get("file_name", "")))
        except ValueError as error:
            aside.append(Quarantined(file, "image", str(image["id"]), str(error)))
            reason = f"its image {image['id']!r} is quarantined"
            aside += [Quarantined(file, "annotation", str(a["id"]), reason) for a in by_image[image["id"]]]
            continue
        objects = []
        for annotation in by_image[image["id"]]:
            box = clip_box(annotation.get("bbox"), pixels.width, pixels.height)
            if isinstance(box, str):
                aside.append(Quarantined(file, "annotation", str(annotation["id"]), box))
            else:
                objects.append(Object(names[annotation["category_id"]], box))
        name = image["file_name"]
        record = Record(str(image["id"]), name, *pixels.size, pixel_hash(pixels), tuple(objects))
        pictures.append(Picture(record, split.images / name))
    return pictures, aside
