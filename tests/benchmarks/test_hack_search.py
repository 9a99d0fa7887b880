"""The search for holes, small: it finds those of the published rewards and none in ours."""

import numpy as np
import pytest

from benchmarks.hack_search import abstention, contests, search
from tasks.params import load_params

CONTESTS = {(task, reward): rest for task, reward, *rest in contests(np.random.default_rng(0), most=2)}
PAYS_THE_WHOLE_PICTURE = ("grounding, 25% sure", "ours with `giou` for `iou`")


@pytest.mark.parametrize("contest", CONTESTS, ids=" ".join)
def test_holes_are_found_in_the_published_rewards_and_not_in_ours(contest):
    found = search(*CONTESTS[contest], depth=1)
    expected = "published" in contest[1] or contest == PAYS_THE_WHOLE_PICTURE
    assert found.hole == expected, found


@pytest.mark.slow
@pytest.mark.parametrize("contest", [c for c in CONTESTS if c[1].startswith("ours")], ids=" ".join)
def test_ours_hold_against_sequences_of_three_edits(contest):
    assert search(*CONTESTS[contest], depth=3).hole == (contest == PAYS_THE_WHOLE_PICTURE)


def test_the_presence_at_which_stating_a_box_pays():
    """(1 - q) 1 + q 0.2 = (1 - q) 0.1 + q 1: existence `all` favours abstaining where less is likely."""
    assert abstention(load_params().reward) == pytest.approx(0.9 / 1.7)
