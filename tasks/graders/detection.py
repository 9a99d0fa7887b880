"""Sub-rewards of a detection answer, each in 0..1 (Visual-RFT, arXiv 2503.01785, section 3.2, repaired).

Both are means over max(num_predictions, num_gold) slots, so that a box too many and a box too few both cost: the
paper's eq. 6 divides by the predictions and lets omission go free. The paper rewards confidence linearly, which makes 0
or 1 the best thing to state and pays for junk at confidence 0; a Brier rule makes the honest probability the best.

A box that matches nothing and lies on a region to ignore (a crowd, a 'difficult' object) is left out before anything is
counted, as if it had not been stated: neither paid nor punished. So is any that matches nothing where not all objects
are labelled (LVIS's `not_exhaustive_category_ids`). Only the test asks such questions, training never does, so that
nothing can be learned from boxes that are free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.data.records import Box
from tasks.graders.boxes import ScoredBox, covered, iou


@dataclass(frozen=True)
class Match:
    """A prediction's confidence and its IoU with the gold box it was given, 0 for none."""

    confidence: float
    iou: float


def match(
    predictions: Sequence[ScoredBox],
    gold: Sequence[Box],
    iou_threshold: float,
    ignore: Sequence[Box] = (),
    exhaustive: bool = True,
) -> tuple[Match, ...]:
    """Greedy one-to-one matching, most confident first; a match needs IoU > `iou_threshold`, strictly.

    Equal confidences go by their best IoU, then by the box, so neither the answer's order nor that of `gold` matters.
    A prediction without a match has none in the result where a region of `ignore` covers more than `iou_threshold` of
    it (COCO's rule of crowds), or where the labels are not `exhaustive`.
    """
    there, matches = sorted(gold), []
    free = list(range(len(there)))
    overlaps = [(p, [iou(p.box, g) for g in there]) for p in predictions]
    for prediction, ious in sorted(overlaps, key=lambda o: (-o[0].confidence, -max(o[1], default=0.0), o[0].box)):
        best = max(free, key=ious.__getitem__, default=None)
        if best is None or ious[best] <= iou_threshold:
            if exhaustive and all(covered(prediction.box, region) <= iou_threshold for region in ignore):
                matches.append(Match(prediction.confidence, 0.0))
            continue
        free.remove(best)
        matches.append(Match(prediction.confidence, ious[best]))
    return tuple(matches)


def iou_reward(matches: Sequence[Match], num_gold: int) -> float:
    """Sum of the matched IoUs / max(num_predictions, num_gold). Nothing there: 1 for no box, 0 for any."""
    if num_gold == 0:
        return float(not matches)
    return sum(m.iou for m in matches) / max(len(matches), num_gold)


def confidence_reward(matches: Sequence[Match], num_gold: int) -> float:
    """Mean of (1 + T) / 2 over the slots: T = 1 - (1 - c)^2 for a match, -c^2 for a miss, 0 for an omitted gold box.

    A box that is right with probability p earns 2pc - c^2 on average, most at c = p, where it is p^2 >= 0: stating it
    beats omitting it. So 0.5 says 'no information': a box at confidence 0 fills its slot with what silence would.
    Nothing there: 1 for no box, 0 for any, whatever its confidence. So c is the probability that the box is right if
    the category is there; whether it is, a model says by stating boxes or none. With the default weights 'No Objects'
    earns more where the chance of any is below 0.53 for a surely placed box (`benchmarks/hack_search.py`), higher for
    an unsure one. Asked for absent categories (`grade.existence: all`), an unsure model should abstain, which costs it
    COCO AP: AP hardly charges for a box at low confidence.
    """
    if num_gold == 0:
        return float(not matches)
    scores = [1 - (1 - m.confidence) ** 2 if m.iou > 0 else -(m.confidence**2) for m in matches]
    return (1 + sum(scores) / max(len(matches), num_gold)) / 2
