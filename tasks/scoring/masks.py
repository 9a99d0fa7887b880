"""Masks of polygons, and what two masks share: LISA's gold (arXiv 2308.00692, `get_mask_from_json` of its code).

Masks are (height, width) arrays of bool. pycocotools fills the polygons; LISA's OpenCV paints their outlines too, about
half a pixel wider on every side.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as rle

from tasks.data.records import Shape


def filled(shape: Shape, width: int, height: int) -> np.ndarray:
    """The pixels inside a polygon, whose points are in thousandths of the sides."""
    flat = [v * side / 1000 for point in shape.points for v, side in zip(point, (width, height), strict=True)]
    return rle.decode(rle.frPyObjects([flat], height, width))[..., 0].astype(bool)


def gold_mask(mask: Sequence[Shape], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The target, and the pixels to ignore. As LISA paints them: the largest shape first, so that a small one on it
    counts.
    """
    target, ignored = (np.zeros((height, width), dtype=bool) for _ in range(2))
    painted = [(filled(shape, width, height), shape.ignore) for shape in mask]
    for pixels, ignore in sorted(painted, key=lambda part: -part[0].sum()):
        target[pixels], ignored[pixels] = not ignore, ignore
    return target, ignored


def overlap(stated: np.ndarray | None, target: np.ndarray, ignored: np.ndarray) -> tuple[int, int]:
    """Pixels that a stated mask (None: none) shares with the target, and pixels of either, without the ignored ones."""
    found = np.zeros_like(target) if stated is None else stated & ~ignored
    return int((found & target).sum()), int((found | target).sum())
