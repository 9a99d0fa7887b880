"""A batch answers what each question alone does."""

import pytest

from benchmarks.grading import measure


@pytest.mark.slow
def test_batched_answers_are_those_of_one_at_a_time():
    result = measure(num_pictures=3, batch_size=4)
    assert result["equal"] == result["questions"] > 4  # more than one batch
    assert result["ratio"] > 0
