"""Simulated studies: do the intervals hold the truth, does the verdict invent differences, does it find real ones?

`python -m benchmarks.coverage [--json] [--studies 2000]`

A study has S seeds and 200 pictures, each with 1 to 6 questions. The reward difference of a question is an effect of
the seed (normal) + one of the picture (exponential: skewed, shared by its questions and seeds) + noise of the answer
(-1, 0 or 1, as rewards are that pile up). Columns:

coverage          share of 95% intervals that hold the true difference, over all k's
false findings    share of studies without any difference that call one better or worse, at any of five k's and of any
                  algorithm (after Holm)
power             share of studies that find a true difference of one algorithm, up or down, at one of five k's (after
                  Holm), as large as what another such study printed as its minimum detectable one

With two algorithms a policy, SFT too, has the three effects each for itself; a difference is one of two policies.
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np

from tasks.scoring.resampling import Resampled, draws
from tasks.scoring.statistics import MIN_SEEDS, holm, minimum_detectable, p_value, verdict

NUM_PICTURES, RESAMPLES, NUM_KS = 200, 400, 5


@dataclass(frozen=True)
class Setting:
    """Standard deviations of the three effects on a question's reward difference; with more than one algorithm, on the
    reward of a policy.
    """

    name: str
    seeds: float
    pictures: float
    answers: float
    algorithms: int = 1


SETTINGS = (
    Setting("independent questions", 0.0, 0.0, 0.4),
    Setting("clustered by picture", 0.0, 0.3, 0.4),
    Setting("seeds as much as pictures", 0.03, 0.3, 0.2),
    Setting("seeds dominate", 0.2, 0.3, 0.2),
    Setting("two algorithms", 0.03, 0.3, 0.2, algorithms=2),
)
NUM_SEEDS = (1, 2, 3, 5)


def studies(setting: Setting, num_seeds: int, num: int, rng: np.random.Generator) -> list[Resampled]:
    """`num` studies without a true difference, on the same bootstrap draws.

    With one seed the interval is about the runs at hand: the seed's own effect is then part of the truth, here 0.
    """
    questions = rng.integers(1, 7, NUM_PICTURES)
    values = setting.pictures * (rng.exponential(size=(num, 1, NUM_PICTURES)) - 1)
    values = values + setting.seeds * (num_seeds > 1) * rng.normal(size=(num, num_seeds, 1))
    first = np.cumsum(questions) - questions  # of each picture
    # -1, 0 or 1 with probabilities 1/4, 1/2, 1/4: variance 1/2.
    noise = np.diff(rng.integers(0, 2, (2, num, num_seeds, questions.sum()), dtype=np.int8), axis=0)[0]
    noise = np.add.reduceat(noise, first, axis=2) / questions
    values = (values + setting.answers * 2**0.5 * noise).reshape(num * num_seeds, NUM_PICTURES)
    counts = np.concatenate([np.ones((1, NUM_PICTURES)), *draws(NUM_PICTURES, RESAMPLES, 0)]) * questions
    means = (counts @ values.T / counts.sum(axis=1, keepdims=True)).reshape(-1, num, num_seeds)
    asked = {f"{i:03}": int(n) for i, n in enumerate(questions)}
    return [Resampled(tuple(range(num_seeds)), means[0, i], means[1:, i], asked) for i in range(num)]


def differences(setting: Setting, num_seeds: int, num: int, rng: np.random.Generator) -> list[Resampled]:
    """Of `num` points of a grid, those of each algorithm in turn; several are compared with the same SFT."""
    drawn = studies(setting, num_seeds, num * (setting.algorithms + (setting.algorithms > 1)), rng)
    if setting.algorithms == 1:
        return drawn
    points = (drawn[i::num] for i in range(num))
    return [algorithm - sft for sft, *algorithms in points for algorithm in algorithms]


def moved(study: Resampled, by: float) -> Resampled:
    return Resampled(study.seeds, study.estimates + by, study.replicates + by, study.questions)


def measure(setting: Setting, num_seeds: int, num: int, seed: int = 0) -> dict:
    """A row of the table. `false_findings` is 0 below MIN_SEEDS, where the verdict finds nothing."""
    rng = np.random.default_rng([seed, num_seeds])
    some = differences(setting, num_seeds, num * NUM_KS, rng)
    num_tests = NUM_KS * setting.algorithms
    p_values = np.array([p_value(study) for study in some]).reshape(num, num_tests)
    verdicts = [
        verdict(study, p, 0.0, relevant=1.0)
        for study, p in zip(some, (p for ps in p_values for p in holm(ps)), strict=True)
    ]
    found = np.reshape([word in ("better", "worse") for word in verdicts], (num, num_tests)).any(axis=1)
    return {
        "setting": setting.name,
        "seeds": num_seeds,
        "coverage": float((p_values >= 0.05).mean()),
        "false_findings": float(found.mean()),
        "power": _power(some[::num_tests], p_values, rng),
    }


def _power(firsts: list[Resampled], p_values: np.ndarray, rng: np.random.Generator) -> float:
    """Of studies whose first comparison alone differs, by what the next study printed. `p_values` (study, comparison)
    are without it.
    """
    found = []
    for study, printed, ps in zip(firsts, firsts[1:] + firsts[:1], p_values, strict=True):
        by = rng.choice((-1, 1)) * minimum_detectable(printed, num_tests=len(ps))
        again = moved(study, by)
        found.append(holm([p_value(again), *ps[1:]])[0] < 0.05 and again.estimate * by > 0)
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--studies", type=int, default=2000)
    args = parser.parse_args()
    rows = [measure(setting, num_seeds, args.studies) for setting in SETTINGS for num_seeds in NUM_SEEDS]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'setting':26} seeds  coverage  false findings  power   ({args.studies} studies each)")
    for row in rows:
        false = f"{row['false_findings']:14.1%}" if row["seeds"] >= MIN_SEEDS else f"{'-':>14}"
        print(f"{row['setting']:26} {row['seeds']:5}  {row['coverage']:8.1%}  {false}  {row['power']:5.1%}")


if __name__ == "__main__":
    main()
