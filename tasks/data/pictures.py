"""Pictures as files: what may be read, how it becomes upright RGB, and what it is known by.

Allowed are JPEG, PNG and WebP of up to 50 megapixels below the data root. EXIF rotation is applied, transparency laid
over white, 16-bit grey scaled to 8, of an animation the first frame taken.
"""

import os
import shutil
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import imagehash
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm

from tasks.data.drafts import short
from tasks.data.records import pixel_hash

MAX_PIXELS = 50_000_000  # a larger header is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
              KeyError, IndexError, TypeError, OverflowError)  # fmt: skip  # what Pillow raises on broken files
LARGE = 8_000_000  # pixels; above, one picture at a time, so that memory stays below 1 GB whatever the number of cores
_one_large = threading.Lock()


@dataclass(frozen=True, slots=True)
class Look:
    """A decoded picture without its pixels. `near_hash` is a 64-bit perceptual hash; with `as_is`, a plain decoder sees
    the same pixels in the file, so that it can be copied; `suffix` belongs to its real format.
    """

    width: int
    height: int
    pixel_hash: str
    near_hash: int
    as_is: bool
    suffix: str


def locate(root: Path, name: object) -> Path:
    """The file `name` below `root`; ValueError with the reason where it is none or lies elsewhere, by a link too."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"no file name: {short(name)}")
    try:
        path = (root / name).resolve()
        inside, is_file = path.is_relative_to(root.resolve()), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte, a name too long
        raise ValueError(f"bad file name: {short(name)} ({type(error).__name__})") from None
    if not inside:
        raise ValueError(f"path leaves the data folder: {short(name)}")
    if not is_file:
        raise ValueError(f"no such picture: {short(name)}")
    return path


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it on white paper. `image` is changed: a copy of a large one costs 200 MB."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        return image.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", rgba.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
        return image
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_plain(image: Image.Image) -> bool:
    rotated = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return image.mode in ("RGB", "L", "1") and not rotated and "transparency" not in image.info


def open_upright(path: Path) -> tuple[Image.Image, bool, str]:
    """The upright RGB picture, whether the file is plain (`Look.as_is`), and its suffix; ValueError with the reason."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            num_pixels = image.width * image.height
            if num_pixels > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            with _one_large if num_pixels > LARGE else nullcontext():
                image.load()
                as_is, suffix = _is_plain(image), SUFFIXES[image.format]
                return upright_rgb(image), as_is, suffix
    except Image.UnidentifiedImageError:
        raise ValueError(f"not a JPEG, PNG or WebP picture: {path.name}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"over {MAX_PIXELS} pixels: {error}") from None
    except UNREADABLE as error:
        raise ValueError(f"unreadable picture: {error}") from None


def near_hash(pixels: Image.Image) -> int:
    """imagehash's phash, of a copy that is shrunk by a whole factor first: five times as fast for photographs."""
    return int(str(imagehash.phash(pixels.reduce(max(1, min(pixels.size) // 128)))), 16)


def look(root: Path, name: object) -> Look:
    """Decode a picture in full; ValueError with the reason if it must not or cannot be read."""
    pixels, as_is, suffix = open_upright(locate(root, name))
    return Look(*pixels.size, pixel_hash(pixels), near_hash(pixels), as_is, suffix)


def look_at_all(root: Path, names: list[object], title: str) -> list[Look | str]:
    """A look, or the reason why there is none, for each name: decoded by as many threads as there are cores (Pillow
    works outside the interpreter's lock, and threads cannot outlive the stage).
    """

    def attempt(name: object) -> Look | str:
        try:
            return look(root, name)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(tqdm(pool.map(attempt, names), total=len(names), desc=title, disable=None))


def copy_picture(source: Path, look: Look, folder: Path) -> str:
    """Put the picture into `folder` under its pixel hash and return its name. What is not plain becomes an upright RGB
    PNG, so that no later reader needs to know of EXIF, transparency or CMYK.
    """
    name = f"{look.pixel_hash[:20]}{look.suffix if look.as_is else '.png'}"
    if look.as_is:
        shutil.copyfile(source, folder / name)
    else:
        open_upright(source)[0].save(folder / name)
    return name
