"""Small scenes: one to four digits in several inks on a plain ground, with exact boxes.

Both worlds are drawn by this one function: handwriting (`tasks.data.digits`, the target task) and print
(`tasks.models.printed`, what the shipped base model was pretrained on), so that the glyphs are the only difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tasks.data.records import Box, Object

SIDE = 112  # pixels; 8 x 8 patches of 14
CATEGORIES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = {
    "black": (25, 25, 30),
    "red": (190, 30, 35),
    "green": (20, 125, 50),
    "blue": (30, 60, 185),
    "purple": (125, 40, 150),
    "brown": (120, 70, 25),
}
INK_IN_BOX = 0.25  # a pixel counts as ink, for the box, from this opacity on
_HEIGHTS = (26, 46)  # of a digit, in pixels
_GAP = 2  # at least so many pixels between two digits' boxes


@dataclass(frozen=True)
class Glyph:
    """A digit's opacity mask, (height, width) float32 in 0..1, cropped to its ink; `clarity` 1 is sharp, 0 a
    low-resolution scan.
    """

    digit: int
    mask: np.ndarray
    clarity: float = 1.0


@dataclass(frozen=True)
class Scene:
    """`image` is (SIDE, SIDE, 3) uint8; `objects` have pixel boxes; `glyphs` and `inks` say how each was drawn."""

    image: np.ndarray
    objects: tuple[Object, ...]
    glyphs: tuple[Glyph, ...]
    inks: tuple[str, ...]


def crop_to_ink(mask: np.ndarray) -> np.ndarray:
    """The smallest rectangle of `mask` that holds every pixel of at least `INK_IN_BOX` opacity."""
    rows, columns = (np.flatnonzero((mask >= INK_IN_BOX).any(axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def resize(mask: np.ndarray, height: int, max_width: int = SIDE // 2) -> np.ndarray:
    """`mask` at `height` pixels, its proportions kept (narrowed where it would exceed `max_width`)."""
    width = min(max_width, max(4, round(mask.shape[1] * height / mask.shape[0])))
    pixels = Image.fromarray(mask).resize((width, height), Image.Resampling.BICUBIC)
    return crop_to_ink(np.clip(np.asarray(pixels), 0, 1))


def _place(rng: np.random.Generator, shapes: Sequence[tuple[int, int]]) -> list[Box] | None:
    """Random boxes of the given (height, width) that do not touch, or None after too many tries."""
    boxes: list[Box] = []
    for height, width in shapes:
        for _ in range(30):
            x, y = int(rng.integers(1, SIDE - width)), int(rng.integers(1, SIDE - height))
            if all(
                x + width + _GAP <= b[0] or b[2] + _GAP <= x or y + height + _GAP <= b[1] or b[3] + _GAP <= y
                for b in boxes
            ):
                boxes.append((x, y, x + width, y + height))
                break
        else:
            return None
    return boxes


def compose(rng: np.random.Generator, draw: Callable[[], Glyph], num_digits: int) -> Scene:
    """A scene of `num_digits` glyphs that `draw` yields, at random places, heights and inks."""
    ground = rng.integers(205, 256) - rng.integers(0, 25, 3)
    image = np.broadcast_to(ground.astype(np.float32), (SIDE, SIDE, 3)).copy()
    while True:
        glyphs = [draw() for _ in range(num_digits)]
        masks = [resize(g.mask, int(rng.integers(*_HEIGHTS))) for g in glyphs]
        if boxes := _place(rng, [m.shape for m in masks]):
            break
    objects, inks = [], []
    for glyph, mask, box in zip(glyphs, masks, boxes, strict=True):
        ink = str(rng.choice(list(INKS)))
        colour = np.clip(np.array(INKS[ink]) + rng.integers(-15, 16, 3), 0, 255)
        x1, y1, x2, y2 = box
        image[y1:y2, x1:x2] += mask[..., None] * (colour - image[y1:y2, x1:x2])
        objects.append(Object(CATEGORIES[glyph.digit], box))
        inks.append(ink)
    return Scene(image.round().astype(np.uint8), tuple(objects), tuple(glyphs), tuple(inks))
