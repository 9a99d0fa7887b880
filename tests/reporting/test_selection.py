"""The picture grid is balanced, and chosen by nothing that depends on the answers' order."""

from dataclasses import replace

import pytest

from tasks.reporting.selection import OUTCOMES, select
from tasks.reporting.study import Answer, Graded, History, Study
from tests.reporting.fake_study import make_params

GRID = make_params(k=(4,), seed=(0,)).grid


def graded(policy, ious):
    answers = tuple(
        Answer(f"p{n}", f"{n}.png", "detection", "cat", (), None, "", (), (), None, iou, content=iou, failure=None)
        for n, iou in enumerate(ious)
    )
    return Graded(policy, 4, 0, "all", {}, answers)


def make_study(num_each):
    """`num_each` questions of each outcome, in the order of OUTCOMES."""
    right = [pair for pair, num in zip(OUTCOMES.values(), num_each, strict=True) for _ in range(num)]
    base = replace(graded("base", [0.0 for _ in right]), k=None, seed=None)
    sft = graded("sft", [0.9 if s else 0.5 for _, s in right])  # exactly the threshold is wrong
    rft = graded("grpo", [0.9 if r else 0.2 for r, _ in right])
    histories: tuple[History, ...] = ()
    return Study(GRID, base, (sft, rft), histories)


@pytest.mark.parametrize(
    ("num_each", "num", "shown"),
    [
        ((9, 9, 9, 9), 8, [2, 2, 2, 2]),
        ((9, 9, 9, 9), 6, [2, 2, 1, 1]),
        ((9, 1, 0, 9), 8, [4, 1, 0, 3]),  # what runs out leaves its places to the others
        ((1, 1, 0, 1), 8, [1, 1, 0, 1]),
    ],
)
def test_places_are_dealt_in_turn(num_each, num, shown):
    outcomes = select(make_study(num_each), "grpo", 4, 0, num)
    assert [o.num for o in outcomes] == list(num_each)
    assert [len(o.shown) for o in outcomes] == shown
    for outcome in outcomes:
        rft_right, sft_right = OUTCOMES[outcome.name]
        assert all(
            (p.answers["grpo"].content > 0.5, p.sft.content > 0.5) == (rft_right, sft_right) for p in outcome.shown
        )


def test_the_order_of_the_rows_does_not_matter():
    study = make_study((9, 9, 9, 9))
    base, *graded = (replace(g, answers=g.answers[::-1]) for g in (study.base, *study.graded))
    turned = replace(study, base=base, graded=tuple(graded))
    assert select(turned, "grpo", 4, 0, 6) == select(study, "grpo", 4, 0, 6)
