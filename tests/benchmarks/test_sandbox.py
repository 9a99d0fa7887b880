"""The benchmark's figures are those of calls that graded."""

from benchmarks.sandbox import PACKAGES, measure, measure_packages


def test_a_few_calls_are_measured_each_way():
    result = measure(calls=3, isolation="auto")
    assert result["isolation"].endswith("+seccomp+rlimits")
    assert 0 < result["median_ms"] <= result["p99_ms"]
    assert result["ratio"] == result["plain_median_ms"] / result["median_ms"]


def test_graders_that_import_packages_are_measured_with_and_without_their_sources():
    figures = measure_packages(calls=3, isolation="auto")
    assert figures.keys() == PACKAGES.keys()
    assert all(each["ratio"] == each["each_call_median_ms"] / each["median_ms"] > 0 for each in figures.values())
