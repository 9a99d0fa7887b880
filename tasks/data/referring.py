"""Instructions that one digit of a scene answers: the embedded twin of reasoning grounding (LISA)."""

from collections.abc import Sequence

import numpy as np

from tasks.data.records import Box, Object
from tasks.data.scenes import CATEGORIES

MARGIN = 1.25  # the largest digit's area is at least so many times the next one's, and the smallest's so much less


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def by_size(objects: Sequence[Object]) -> list[tuple[str, Object]]:
    """'the largest digit', 'the smallest digit', where the eye can tell."""
    ordered = sorted(objects, key=lambda o: area(o.box))
    found = []
    if len(ordered) > 1 and area(ordered[-1].box) >= MARGIN * area(ordered[-2].box):
        found.append(("the largest digit", ordered[-1]))
    if len(ordered) > 1 and area(ordered[1].box) >= MARGIN * area(ordered[0].box):
        found.append(("the smallest digit", ordered[0]))
    return found


def by_sum(objects: Sequence[Object]) -> list[tuple[str, Object]]:
    """'the digit that is the sum of two and three', for each digit that stands in the scene once and each sum of two
    digits from one up that makes it.
    """
    names = [o.category for o in objects]
    return [
        (f"the digit that is the sum of {CATEGORIES[a]} and {CATEGORIES[value - a]}", o)
        for o in objects
        if names.count(o.category) == 1
        for value in [CATEGORIES.index(o.category)]
        for a in range(1, value)
    ]


def one_kind(objects: Sequence[Object], rng: np.random.Generator) -> tuple[list[tuple[str, Object]], bool]:
    """The instructions of one kind, each as likely where the scene has both, and whether they are sums."""
    sizes, sums = by_size(objects), by_sum(objects)
    kind = sizes if sizes and (not sums or rng.random() < 0.5) else sums
    return kind, kind is sums
