"""The benchmark's figures are those of calls that graded."""

from benchmarks.sandbox import measure


def test_a_few_calls_are_measured_each_way():
    result = measure(calls=3, isolation="auto")
    assert result["isolation"].endswith("+seccomp+rlimits")
    assert 0 < result["median_ms"] <= result["p99_ms"]
    assert result["ratio"] == result["plain_median_ms"] / result["median_ms"]
