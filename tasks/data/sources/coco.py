"""COCO instances JSON (https://cocodataset.org/#format-data) and LVIS v1 (https://www.lvisdataset.org/dataset).

Ids must be unique, or the last item would win in silence. An annotation id 0, which pycocotools takes for 'no match',
is fine here: ids of annotations are not used. Crowd regions become `ignore`; the flag `ignore` of an annotation says
nothing, as pycocotools has it (`iscrowd` overwrites it).

LVIS is federated: a picture is labelled for a few categories only. `neg_category_ids` were looked for and are not
there, of `not_exhaustive_category_ids` not all objects are labelled, of any other nothing is known. Its pictures are
named by `coco_url`, whose last two parts (train2017/000000000009.jpg) are the path below `images`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tasks.data.drafts import Draft, Reading, Region, existing, parse_json, read_text, short, text_fault
from tasks.data.records import DataError
from tasks.schema.dataset import CocoFiles

LISTS = ("images", "annotations", "categories")


def _load(path: Path) -> dict[str, list]:
    text = read_text(path, "give the instances JSON as `annotations`")
    try:
        coco = parse_json(text, without="segmentation")  # most of the file: COCO's train2017 would take gigabytes
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}; write the file again") from None
    for key in LISTS:
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise DataError(f"{path}: no list '{key}'; an instances file has {', '.join(LISTS)}")
    return coco


def _usable(reading: Reading, path: Path, kind: str, items: list) -> dict[int | str, dict]:
    """The items that are objects with an id, by id; DataError where an id stands twice."""
    counts: Counter = Counter()
    usable: dict[int | str, dict] = {}
    for number, item in enumerate(items):
        key = item.get("id") if isinstance(item, dict) else None
        if not isinstance(key, int | str) or isinstance(key, bool):
            fault = "no usable id" if isinstance(item, dict) else "not a JSON object"
            reading.refuse(path, kind, f"#{number}", f"{fault}: {short(key if isinstance(item, dict) else item)}")
            continue
        counts[key] += 1
        usable[key] = item
    if twice := [key for key, count in counts.items() if count > 1]:
        raise DataError(
            f"{path}: id {twice[0]!r} stands twice among the {kind} items; ids must be unique (the last would win in "
            "silence): give each its own"
        )
    return usable


def _category_names(reading: Reading, path: Path, items: list) -> dict[int | str, str]:
    categories = _usable(reading, path, "category", items)
    names: dict[int | str, str] = {}
    for key, category in categories.items():
        if fault := text_fault(category.get("name")):
            reading.refuse(path, "category", key, fault)
            continue
        names[key] = category["name"]
        if category.get("frequency") in ("f", "c", "r"):
            reading.frequency[category["name"]] = category["frequency"]
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise DataError(f"{path}: the category name {twice[0]!r} stands twice; give the second another, or join them")
    return names


def _by_image(reading: Reading, path: Path, items: list, images: dict, names: dict) -> dict[object, list[dict]]:
    """Annotations of known images and categories by image id."""
    found = defaultdict(list)
    for key, annotation in _usable(reading, path, "annotation", items).items():
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image, int | str) or image not in images:
            reading.refuse(path, "annotation", key, f"no such image: {short(image)}")
        elif not isinstance(category, int | str) or category not in names:
            reading.refuse(path, "annotation", key, f"no such category: {short(category)}")
        else:
            found[image].append(annotation)
    return found


def _named(ids: object, names: dict) -> tuple[str, ...]:
    known = [names[i] for i in ids if isinstance(i, int | str) and i in names] if isinstance(ids, list) else []
    return tuple(known)


def _file_name(image: dict) -> object:
    return image.get("file_name")


def _url_name(image: dict) -> object:
    url = image.get("coco_url")
    return "/".join(urlsplit(url).path.split("/")[-2:]) if isinstance(url, str) else url


def _read(files: CocoFiles, name_of: Callable[[dict], object]) -> Reading:
    path = Path(files.annotations)
    coco = _load(path)
    reading = Reading(existing(Path(files.images), "folder", "give the folder of the pictures as `images`"))
    names = _category_names(reading, path, coco["categories"])
    images = _usable(reading, path, "image", coco["images"])
    by_image = _by_image(reading, path, coco["annotations"], images, names)
    for key, image in images.items():
        objects, crowds = [], []
        for a in by_image[key]:
            region = Region(str(a["id"]), names[a["category_id"]], a.get("bbox"))
            (crowds if a.get("iscrowd") else objects).append(region)
        reading.add(
            Draft(
                str(key), name_of(image), str(path), objects=tuple(objects), ignore=tuple(crowds), form="xywh",
                size=(image.get("width"), image.get("height")),
                negative=_named(image.get("neg_category_ids"), names),
                not_exhaustive=_named(image.get("not_exhaustive_category_ids"), names),
                federated="neg_category_ids" in image,
            )
        )  # fmt: skip
    return reading


def read_coco(files: CocoFiles, scratch: Path) -> Reading:
    return _read(files, _file_name)


def read_lvis(files: CocoFiles, scratch: Path) -> Reading:
    return _read(files, _url_name)
