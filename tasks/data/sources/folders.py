"""Class folders: <images>/<class>/.../<picture>. Names that begin with a dot are not read."""

from pathlib import Path

from tasks.data.drafts import Draft, Reading, existing
from tasks.data.records import DataError
from tasks.schema.dataset import FolderFiles


def read_folder(files: FolderFiles, scratch: Path) -> Reading:
    root = existing(Path(files.images), "folder", "give the folder that holds a folder for each class as `images`")
    reading = Reading(root)
    for path in sorted(p for p in root.rglob("*") if not p.is_dir()):
        name = path.relative_to(root)
        if any(part.startswith(".") for part in name.parts):
            continue
        if len(name.parts) < 2:
            reading.refuse(path, "image", name, "not in a class folder: it lies beside them")
        else:
            reading.add(Draft(name.as_posix(), name.as_posix(), str(path), label=name.parts[0]))
    if not reading.read:
        raise DataError(f"{root}: nothing in it; give the folder that holds a folder for each class")
    return reading
