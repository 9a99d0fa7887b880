"""The benchmark's two ways agree, on the set and on resamples."""

from benchmarks.ap_bootstrap import measure


def test_ours_is_the_stock_way():
    result = measure(num_pictures=30, resamples=40, num_stock=3)
    assert result["difference_of_the_set"] < 1e-9
    assert result["largest_difference"] < 1e-9
    assert 0.1 < result["ap"] < 0.9
    assert result["ratio"] > 2
