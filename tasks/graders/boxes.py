"""Boxes and their overlap. Everything is in thousandths of the picture's sides; IoU does not depend on that unit."""

from dataclasses import dataclass

from tasks.data.records import Box


@dataclass(frozen=True)
class ScoredBox:
    """A box that a model stated, with its confidence in 0..1."""

    box: Box
    confidence: float


def area(box: Box) -> float:
    """Area in square units of the box; 0 for a reversed box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union in 0..1; 0 when both boxes are so thin that their areas underflow."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)  # this runs for every pair: no calls
    height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
    if not (width > 0 and height > 0):
        return 0.0
    shared = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return shared / union if union > 0 else 0.0


def covered(box: Box, region: Box) -> float:
    """The share of the box, in 0..1, that the region covers; 0 for a box so thin that its area underflows."""
    shared = (max(box[0], region[0]), max(box[1], region[1]), min(box[2], region[2]), min(box[3], region[3]))
    return area(shared) / area(box) if area(box) > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    """Generalized IoU in -1..1 (Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1): IoU less the share of the hull
    that neither box covers, so that disjoint boxes are told apart by their distance.
    """
    hull = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    union = area(a) + area(b) - area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return iou(a, b) - (hull - union) / hull if hull > 0 else -1.0
