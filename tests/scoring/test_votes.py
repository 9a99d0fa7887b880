"""Majority vote and pass@k."""

import itertools
from functools import partial

import pytest

from tasks.graders.judges import same_answer
from tasks.params import MathsReward
from tasks.scoring.votes import best, majority, pass_at_k

same = partial(same_answer, rubric=MathsReward(answer=1.0, format=0.0))


@pytest.mark.parametrize(
    ("labels", "winner"),
    [
        pytest.param(("7", "8", "8"), "8", id="the most"),
        pytest.param(("8", "7"), "8", id="a tie: the earliest"),
        pytest.param(("7", "1,234", "$1234", "8", "1234.0"), "1,234", id="published: exact floats, so spellings part"),
        pytest.param(("0.33333", "1/3", "5"), "0.33333", id="within the tolerance"),
        pytest.param((None, None, "7"), "7", id="what cannot be read does not vote"),
        pytest.param(("50%", "50%", "0.5%", "0.5%", "7", "7", "7"), "7", id="a hundredth is another number"),
        pytest.param(("7", "7", "41.995", "42", "42"), "41.995", id="within the tolerance of either"),
        pytest.param(("b", "(B)", "c"), "b", id="letters"),
        pytest.param(("1e15", "True"), "1e15", id="what is neither stands alone"),
        pytest.param((None,), None, id="nobody votes"),
        pytest.param((), None, id="no samples"),
    ],
)
def test_the_majority(labels, winner):
    elected = majority(labels, same)
    assert (None if elected is None else labels[elected]) == winner


def test_the_best_liked_sample_is_one_that_states_an_answer():
    assert best([0.1, 0.9, 0.5], [True, True, True]) == 1
    assert best([0.1, 0.9, 0.5], [True, False, True]) == 2
    assert best([0.5, 0.5], [True, True]) == 0
    assert best([0.5], [False]) is None
    assert best([], []) is None


def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one():
    for num, right in ((1, 0), (1, 1), (5, 2), (6, 0), (6, 6)):
        samples = [True] * right + [False] * (num - right)
        for k in range(1, num + 1):
            choices = list(itertools.combinations(samples, k))
            assert pass_at_k(num, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))
    with pytest.raises(ValueError, match="pass@6 of 5"):
        pass_at_k(5, 1, 6)
