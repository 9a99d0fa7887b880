"""A grade in the sandbox against one in a plain new interpreter, which stops nothing: milliseconds a call.

`python -m benchmarks.sandbox [--json] [--calls 500] [--isolation auto]`

One call at a time, in turns with `subprocess.run([python, "-c", ...])` that grades the same sample: what else the
machine does slows both, and tells less in their ratio. Then graders that import a package, in a sandbox that was told
of their sources and so imports it once, in turns with one that was not (a tenth of the calls).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from tasks.graders.sandbox import Sandbox

GRADER = "def grade(sample, item):\n    return float(sample['output_text'].strip() == item['answer'])"
SAMPLE, ITEM = {"output_text": " 42 "}, {"answer": "42"}
PACKAGES = {
    "rapidfuzz": (
        "from rapidfuzz import fuzz\n"
        "def grade(sample, item):\n    return fuzz.ratio(sample['output_text'].strip(), item['answer']) / 100"
    ),
    "numpy": (
        "import numpy as np\n"
        "def grade(sample, item):\n    return np.mean([sample['output_text'].strip() == item['answer']])"
    ),
}
PLAIN = f"import json, sys\n{GRADER}\nprint(grade(*json.load(sys.stdin)))"


def measure(calls: int, isolation: str) -> dict:
    """Milliseconds of each way, and the ratio of their medians."""
    with Sandbox(isolation=isolation, workers=1) as sandbox:

        def warm() -> None:
            assert sandbox.call(GRADER, "grade", SAMPLE, ITEM).value == 1.0

        def plain() -> None:
            done = subprocess.run(
                [sys.executable, "-c", PLAIN], input=json.dumps([SAMPLE, ITEM]), capture_output=True, text=True
            )
            assert float(done.stdout) == 1.0

        warm_ms, plain_ms = [], []
        for _ in range(calls):
            warm_ms.append(timed(warm))
            plain_ms.append(timed(plain))
    return {
        "isolation": sandbox.isolation,
        "calls": calls,
        "median_ms": statistics.median(warm_ms),
        "p99_ms": statistics.quantiles(warm_ms, n=100)[98],
        "plain_median_ms": statistics.median(plain_ms),
        "ratio": statistics.median(plain_ms) / statistics.median(warm_ms),
    }


def measure_packages(calls: int, isolation: str) -> dict[str, dict]:
    """{package: median milliseconds of a grader that imports it, each call for itself and once a worker}."""
    found = {}
    for package, source in PACKAGES.items():
        with (
            Sandbox(isolation=isolation, workers=1) as untold,
            Sandbox(isolation=isolation, workers=1, sources=[source]) as told,
        ):

            def grade(sandbox: Sandbox, source: str = source) -> None:
                assert sandbox.call(source, "grade", SAMPLE, ITEM).value == 1.0

            pairs = [(timed(lambda: grade(untold)), timed(lambda: grade(told))) for _ in range(calls)]
        each, once = (statistics.median(column) for column in zip(*pairs, strict=True))
        found[package] = {"each_call_median_ms": each, "median_ms": once, "ratio": each / once}
    return found


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--isolation", choices=["auto", "landlock", "bubblewrap"], default="auto")
    args = parser.parse_args()
    if args.calls < 2:
        parser.error(f"--calls {args.calls}: at least 2")
    result = measure(args.calls, args.isolation)
    result["packages"] = measure_packages(max(2, args.calls // 10), args.isolation)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(
        "{isolation}, {calls} calls: median {median_ms:.1f} ms, p99 {p99_ms:.1f} ms; a plain interpreter "
        "{plain_median_ms:.1f} ms: {ratio:.1f} times as fast".format(**result)
    )
    for package, figures in result["packages"].items():
        print(
            "a grader that imports {}: median {median_ms:.1f} ms; where each call imports it "
            "{each_call_median_ms:.1f} ms: {ratio:.1f} times as fast".format(package, **figures)
        )


if __name__ == "__main__":
    main()
