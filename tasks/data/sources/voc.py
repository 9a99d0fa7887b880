"""Pascal VOC XML (VOC2012 development kit, section 'Annotation'): a file a picture.

Boxes count pixels from 1 and include the last one: xmin = 1 is the left edge 0, xmax = width the right edge. Objects
marked `difficult` become `ignore`, as VOC's own scoring does. XML with entities (billion laughs) is refused.
"""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from tasks.data.drafts import Draft, Reading, Region, existing, read_text
from tasks.data.records import DataError
from tasks.schema.dataset import VocFiles

SIDES = ("xmin", "ymin", "xmax", "ymax")


def _number(node: Element | None, tag: str) -> float | str | None:
    """The number in a child; its text (or None) where that is none."""
    text = node.findtext(tag) if node is not None else None
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


def _region(number: int, node: Element) -> Region:
    box = [_number(node.find("bndbox"), side) for side in SIDES]
    if all(isinstance(value, float) for value in box):
        box = [box[0] - 1, box[1] - 1, box[2], box[3]]
    name = node.findtext("name")
    return Region(f"object {number}", name.strip() if name else name, box)


def _size(root: Element) -> tuple[object, object] | None:
    """Width and height; some tools write 0 x 0 where they do not know."""
    sides = [_number(root.find("size"), tag) for tag in ("width", "height")]
    return tuple(int(s) for s in sides) if all(isinstance(s, float) and 1 <= s < 1e6 for s in sides) else None


def _draft(file: Path, root: Element) -> Draft:
    objects, difficult = [], []
    for number, node in enumerate(root.findall("object"), start=1):
        is_difficult = (node.findtext("difficult") or "").strip() == "1"
        (difficult if is_difficult else objects).append(_region(number, node))
    return Draft(
        file.stem, root.findtext("filename"), str(file), objects=tuple(objects), ignore=tuple(difficult),
        size=_size(root),
    )  # fmt: skip


def _listed(files: VocFiles, folder: Path) -> list[tuple[Path, int | None]]:
    """The XML files meant, with the line that names each."""
    if files.list is None:
        found = sorted(folder.glob("*.xml"))
        if not found:
            raise DataError(f"{folder}: no .xml file; give the folder Annotations as `annotations`")
        return [(file, None) for file in found]
    lines = read_text(Path(files.list), "give a list such as ImageSets/Main/trainval.txt").splitlines()
    return [(folder / f"{line.split()[0]}.xml", n) for n, line in enumerate(lines, start=1) if line.strip()]


def read_voc(files: VocFiles, scratch: Path) -> Reading:
    folder = existing(Path(files.annotations), "folder", "give the folder Annotations as `annotations`")
    reading = Reading(existing(Path(files.images), "folder", "give the folder JPEGImages as `images`"))
    for file, line in _listed(files, folder):
        if not file.resolve().is_relative_to(folder.resolve()):
            reading.refuse(Path(files.list or folder), "image", file.stem, f"path leaves the data folder: {file}", line)
            continue
        try:
            root = parse(file).getroot()
        except FileNotFoundError:
            reading.refuse(Path(files.list or folder), "image", file.stem, f"no such annotation file: {file}", line)
        except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # LookupError: an unknown encoding
            reading.refuse(file, "image", file.stem, f"not usable XML: {error!r}")
        else:
            reading.add(_draft(file, root))
    return reading
