"""Printed digits for pretraining: the fonts that matplotlib ships, rotated, sheared, stretched and resampled.

No handwriting here, so that the embedded task (`tasks.data.digits`) is a real domain shift for the shipped model.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.data.scenes import Glyph, crop_to_ink

_FONTS = ("DejaVuS*.ttf", "STIXGeneral*.ttf", "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf", "cmti10.ttf")
_SIZE = 48  # pixels a font is drawn at, before it is deformed
_MIDDLE = 40  # of the square canvas that the deformed digit is cropped from


@cache
def fonts() -> tuple[ImageFont.FreeTypeFont, ...]:
    """Every text font that matplotlib ships with the digits 0-9 in it."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = sorted(p for pattern in _FONTS for p in folder.glob(pattern) if "Display" not in p.name)
    return tuple(ImageFont.truetype(str(path), _SIZE) for path in paths)


@cache
def _drawn(font: int, digit: int, stroke: int) -> Image.Image:
    canvas = Image.new("L", (2 * _MIDDLE, 2 * _MIDDLE))
    ImageDraw.Draw(canvas).text((_MIDDLE, _MIDDLE), str(digit), 255, fonts()[font], anchor="mm", stroke_width=stroke)
    return canvas


def printed_glyph(rng: np.random.Generator) -> Glyph:
    """A random printed digit; half of them went through 7 to 32 pixels of height (clarity 0 at 7, 1 from 24 on)."""
    digit = int(rng.integers(10))
    canvas = _drawn(int(rng.integers(len(fonts()))), digit, int(rng.choice([0, 0, 1, 2, 4])))
    angle, shear = np.deg2rad(rng.normal(0, 9)), rng.normal(0, 0.18)
    stretch = np.exp(rng.normal(0, 0.2, 2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, shear], [0, 1]]) @ np.diag(stretch)
    offset = np.array([_MIDDLE, _MIDDLE]) - matrix @ [_MIDDLE, _MIDDLE]
    affine = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
    drawn = canvas.transform(canvas.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    mask = crop_to_ink(np.asarray(drawn, dtype=np.float32) / 255)
    if rng.random() < 0.5:  # a low-resolution scan, enlarged again by whoever draws the glyph
        resolution = float(np.exp(rng.uniform(np.log(7), np.log(32))))
        small = (max(3, round(resolution * mask.shape[1] / mask.shape[0])), round(resolution))
        scan = np.asarray(Image.fromarray(mask).resize(small, Image.Resampling.BOX))
        mask = crop_to_ink(scan / max(0.5, float(scan.max())))
        return Glyph(digit, mask.astype(np.float32), float(np.clip((resolution - 7) / 17, 0, 1)))
    return Glyph(digit, mask)
