"""Every bad or odd picture of the bad-input table: refused with its reason, or seen as a viewer shows it."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tasks.data.pictures import MAX_PIXELS, copy_picture, look, open_upright
from tasks.data.records import pixel_hash


def encoded(image, form, **more):
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


RED = Image.new("RGB", (20, 10), (200, 0, 0))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def png_with_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a JPEG, PNG or WebP"),
        (b"text", "not a JPEG, PNG or WebP"),
        (encoded(RED, "GIF"), "not a JPEG, PNG or WebP"),
        (encoded(RED, "BMP"), "not a JPEG, PNG or WebP"),
        (encoded(RED, "TIFF"), "not a JPEG, PNG or WebP"),
        (encoded(NOISE, "JPEG")[:-200], "unreadable picture"),
        (encoded(NOISE, "PNG")[:-200], "unreadable picture"),
        (encoded(NOISE, "WEBP")[:-200], "unreadable picture"),
        (png_with_header(20_000, 20_000), f"over {MAX_PIXELS} pixels: Image size .400000000"),
        (png_with_header(7_072, 7_071), f"over {MAX_PIXELS} pixels"),
        (png_with_header(100, 100), "unreadable picture"),
    ],
)
def test_a_bad_picture_is_refused_with_its_reason(tmp_path, content, reason):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        look(tmp_path, "x.jpg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.png", "leaves the data folder"),
        ("a/../../out.png", "leaves the data folder"),
        ("link.png", "leaves the data folder"),
        ("loop.png", "no such picture|bad file name"),
        ("missing.png", "no such picture"),
        (".", "no such picture"),
        ("pipe", "no such picture"),  # opening it would wait for ever
        ("zero\0byte", "bad file name"),
        ("x" * 5000, "no such picture|bad file name"),
        ("", "no file name"),
        (None, "no file name"),
        (7, "no file name"),
    ],
)
def test_a_path_stays_below_the_root_and_is_a_file(tmp_path, name, reason):
    (tmp_path / "root" / "a").mkdir(parents=True)
    RED.save(tmp_path / "out.png")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "root" / "loop.png").symlink_to(tmp_path / "root" / "loop.png")
    os.mkfifo(tmp_path / "root" / "pipe")
    with pytest.raises(ValueError, match=reason):
        look(tmp_path / "root", name)
    with pytest.raises(ValueError, match="leaves the data folder"):
        look(tmp_path / "root", str(tmp_path / "out.png"))


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: 20 x 10 stored, 10 x 20 seen
    return encoded(RED, "PNG", exif=exif)


def animation(form):
    return encoded(RED, form, save_all=True, append_images=[Image.new("RGB", (20, 10), "blue")])


@pytest.mark.parametrize(
    ("content", "size", "colour", "is_copied"),
    [
        (encoded(RED, "PNG"), (20, 10), (200, 0, 0), True),
        (encoded(RED.convert("L"), "PNG"), (20, 10), (60, 60, 60), True),
        (rotated(), (10, 20), (200, 0, 0), False),
        (encoded(Image.new("RGBA", (20, 10), (200, 0, 0, 0)), "PNG"), (20, 10), (255, 255, 255), False),
        (
            encoded(Image.new("RGBA", (20, 10), (200, 0, 0, 128)), "WEBP", lossless=True),
            (20, 10),
            (227, 127, 127),
            False,
        ),
        (encoded(Image.new("LA", (20, 10), (0, 0)), "PNG"), (20, 10), (255, 255, 255), False),
        (encoded(RED.convert("P"), "PNG", transparency=RED.convert("P").getpixel((0, 0))), (20, 10), (255,) * 3, False),
        (encoded(RED.convert("CMYK"), "JPEG", quality=100), (20, 10), (200, 0, 0), False),
        (encoded(Image.fromarray(np.full((10, 20), 25700, np.uint16)), "PNG"), (20, 10), (100, 100, 100), False),
        (animation("PNG"), (20, 10), (200, 0, 0), True),
        (animation("WEBP"), (20, 10), (200, 0, 0), True),
    ],
)
def test_an_odd_picture_is_seen_upright_in_rgb_over_white_and_copied_so(tmp_path, content, size, colour, is_copied):
    (tmp_path / "x.gif").write_bytes(content)  # the extension says nothing
    seen = look(tmp_path, "x.gif")
    pixels, as_is, _ = open_upright(tmp_path / "x.gif")
    assert (seen.width, seen.height) == pixels.size == size
    assert np.abs(np.array(pixels.getpixel((3, 3))) - colour).max() <= 3
    (tmp_path / "pool").mkdir()
    name = copy_picture(tmp_path / "x.gif", seen, tmp_path / "pool")
    with Image.open(tmp_path / "pool" / name) as copied:  # as the stages that follow open it
        assert pixel_hash(copied.convert("RGB")) == seen.pixel_hash
    assert as_is == is_copied == ((tmp_path / "pool" / name).read_bytes() == content)
    assert name.endswith((".png", ".jpg", ".webp"))
