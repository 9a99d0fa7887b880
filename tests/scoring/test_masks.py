"""Masks by hand: what polygons fill, what is ignored, and LISA's gIoU and cIoU."""

import numpy as np
import pytest

from tasks.data.records import Shape
from tasks.scoring.masks import gold_mask, overlap
from tasks.scoring.metrics import masks

WIDTH, HEIGHT = 20, 10


def square(left, top, right, bottom, ignore=False) -> Shape:
    """Corners in pixels."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Shape(tuple((1000 * x / WIDTH, 1000 * y / HEIGHT) for x, y in corners), ignore)


def pixels(left, top, right, bottom) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("shapes", "target", "ignored"),
    [
        pytest.param([square(2, 1, 12, 9)], pixels(2, 1, 12, 9), pixels(0, 0, 0, 0), id="one"),
        pytest.param(
            [square(0, 0, 4, 4), square(9, 0, 14, 4)], pixels(0, 0, 4, 4) | pixels(9, 0, 14, 4), None, id="two targets"
        ),
        pytest.param(
            [square(4, 2, 6, 4, True), square(2, 1, 12, 9)],
            pixels(2, 1, 12, 9) & ~pixels(4, 2, 6, 4), pixels(4, 2, 6, 4), id="a hole to ignore, whatever the order",
        ),
        pytest.param(
            [square(4, 2, 6, 4), square(2, 1, 12, 9, True)],
            pixels(4, 2, 6, 4), pixels(2, 1, 12, 9) & ~pixels(4, 2, 6, 4), id="a target on a region to ignore",
        ),
        pytest.param([], pixels(0, 0, 0, 0), None, id="nothing"),
    ],
)  # fmt: skip
def test_the_gold_mask(shapes, target, ignored):
    found = gold_mask(shapes, WIDTH, HEIGHT)
    assert (found[0] == target).all()
    assert ignored is None or (found[1] == ignored).all()


def test_ignored_pixels_count_for_nothing():
    target, ignored = gold_mask([square(0, 0, 10, 10), square(10, 0, 20, 10, True)], WIDTH, HEIGHT)
    assert overlap(pixels(0, 0, 20, 10), target, ignored) == (100, 100)
    assert overlap(pixels(0, 0, 20, 10), target, np.zeros_like(target)) == (100, 200)
    assert overlap(pixels(5, 0, 15, 10), target, ignored) == (50, 100)
    assert overlap(target, target, ignored) == (100, 100)
    assert overlap(None, target, ignored) == (0, 100)  # no box stated
    assert overlap(None, np.zeros_like(target), ignored) == (0, 0)


def test_giou_and_ciou_by_hand():
    rows = [("p", (50, 100)), ("p", (0, 100)), ("q", (300, 300)), ("r", (0, 0))]
    found = masks([{"record_id": name, "mask_overlap": counts} for name, counts in rows])
    assert found["mask_miou"] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    assert found["mask_giou"] == pytest.approx((0.25 + 1 + 1) / 3)
    assert found["mask_ciou"] == pytest.approx(350 / 500)
    assert masks([]) == {}
    assert masks([{"record_id": "p", "mask_overlap": (0, 0)}])["mask_ciou"] == 1
