"""Fine-grained classification sets as their makers ship them: lists that name a class for each picture.

Flowers102 (Nilsback & Zisserman 2008), Oxford-IIIT Pets (Parkhi et al. 2012), FGVC-Aircraft (Maji et al. 2013),
Stanford Cars (Krause et al. 2013).
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from tasks.data.drafts import Draft, Reading, existing, read_text, short
from tasks.data.records import DataError
from tasks.schema.dataset import AircraftFiles, CarsFiles, FlowersFiles, PetsFiles

BROKEN_MAT = (ValueError, TypeError, NotImplementedError, MatReadError, OSError, zlib.error, struct.error, KeyError)
SETS = {"train": "trnid", "val": "valid", "test": "tstid"}  # of setid.mat


def _mat(path: Path, key: str) -> np.ndarray:
    """A variable of a MATLAB 5 file, (n,)."""
    existing(path, "file", "give the file that the data set's site offers")
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[key])
    except BROKEN_MAT as error:
        raise DataError(f"{path}: no variable '{key}' to read ({error!r}); fetch the file again") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is neither empty nor a comment."""
    for number, line in enumerate(read_text(path, "give the root of the unpacked data set").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def read_flowers(files: FlowersFiles, scratch: Path) -> Reading:
    """Picture n is jpg/image_0000n.jpg; labels[n - 1] its class from 1; setid.mat has the numbers of each split."""
    root = Path(files.root)
    names = [line for _, line in _lines(Path(files.names))]
    reading = Reading(existing(root / "jpg", "folder", "unpack 102flowers.tgz there"))
    labels, chosen = _mat(root / "imagelabels.mat", "labels"), _mat(root / "setid.mat", SETS[files.split])
    for number in chosen.tolist():
        if not isinstance(number, int) or not 1 <= number <= len(labels):
            reading.refuse(root / "setid.mat", "image", number, f"no label for picture: {short(number)}")
        elif not 1 <= labels[number - 1] <= len(names):
            reason = f"no name for class: {labels[number - 1]} ({files.names} has {len(names)})"
            reading.refuse(root / "imagelabels.mat", "image", number, reason)
        else:
            name = f"image_{number:05d}.jpg"
            reading.add(Draft(name, name, str(root / "imagelabels.mat"), label=names[int(labels[number - 1]) - 1]))
    return reading


def read_pets(files: PetsFiles, scratch: Path) -> Reading:
    """Lines `<picture> <class from 1> <1 cat, 2 dog> <breed>`; the breed's name is that of the picture."""
    path = Path(files.root) / "annotations" / f"{files.list}.txt"
    reading = Reading(existing(Path(files.root) / "images", "folder", "unpack images.tar.gz there"))
    names: dict[str, str] = {}
    for number, line in _lines(path):
        words = line.split()
        breed, _, index = words[0].rpartition("_")
        if len(words) != 4 or not breed or not index.isdigit() or not all(w.isdigit() for w in words[1:]):
            reading.refuse(path, "image", words[0], f"not <picture> <class> <species> <breed>: {short(line)}", number)
        elif names.setdefault(words[1], breed) != breed:
            reason = f"class has another name: {words[1]} is {names[words[1]]}, here {breed}"
            reading.refuse(path, "image", words[0], reason, number)
        else:
            label = breed.replace("_", " ")
            reading.add(Draft(words[0], f"{words[0]}.jpg", str(path), number, label=label))
    return reading


def read_aircraft(files: AircraftFiles, scratch: Path) -> Reading:
    """Lines `<picture> <variant>`; a variant may hold blanks and slashes (F/A-18)."""
    path = Path(files.root) / f"images_variant_{files.split}.txt"
    reading = Reading(existing(Path(files.root) / "images", "folder", "give the data set's folder `data` as `root`"))
    for number, line in _lines(path):
        picture, _, variant = line.partition(" ")
        if variant.strip():
            reading.add(Draft(picture, f"{picture}.jpg", str(path), number, label=variant.strip()))
        else:
            reading.refuse(path, "image", picture, f"not <picture> <variant>: {short(line)}", number)
    return reading


def read_cars(files: CarsFiles, scratch: Path) -> Reading:
    """`annotations` has a struct a picture with fname and class (from 1; absent in the test file without labels)."""
    path = Path(files.annotations)
    names = _mat(Path(files.meta), "class_names").tolist()
    rows = _mat(path, "annotations")
    reading = Reading(existing(Path(files.images), "folder", "give cars_train or cars_test as `images`"))
    if not {"fname", "class"} <= set(rows.dtype.names or ()):
        raise DataError(f"{path}: no field 'class'; for the test pictures take cars_test_annos_withlabels.mat")
    for row in rows:
        name, number = str(row["fname"]), row["class"]
        if isinstance(number, int | np.integer) and 1 <= number <= len(names):
            reading.add(Draft(name, name, str(path), label=str(names[number - 1])))
        else:
            reading.refuse(path, "image", name, f"no name for class: {short(number)}")
    return reading
