"""The smaller tables: what training cost, and how answers fail."""

from dataclasses import dataclass

import pandas as pd

from tasks.reporting.study import Study


@dataclass(frozen=True)
class Training:
    """What a policy cost at one k. Minutes are means over seeds; the total counts the warm-up that RFT starts from."""

    k: int
    policy: str
    num_labelled: str
    minutes: float
    total_minutes: float
    kept: str


def trainings(study: Study) -> list[Training]:
    rows = []
    for k in study.ks:
        minutes = {}
        for policy in ("warmup", *study.grid.policy):
            runs = study.trainings(policy, k)
            minutes[policy] = sum(run.seconds for run in runs) / len(runs) / 60
            total = minutes[policy] + (minutes["warmup"] if policy in study.grid.algorithm else 0)
            labelled, kept = [run.num_labelled for run in runs], ", ".join(str(run.best_step) for run in runs)
            span = str(labelled[0]) if len(set(labelled)) == 1 else f"{min(labelled)} to {max(labelled)}"
            rows.append(Training(k, policy, span, minutes[policy], total, kept))
    return rows


def failures(study: Study) -> pd.DataFrame:
    """Counts of answers, all seeds together: a row a (policy, k), a column a failure code, the most frequent first."""
    rows = [
        {"policy": graded.policy, "k": "" if graded.k is None else f"{graded.k}", "code": answer.failure or "none"}
        for graded in (study.base, *study.graded)
        for answer in graded.answers
    ]
    counts = pd.DataFrame(rows).groupby(["policy", "k", "code"], sort=False).size().unstack(fill_value=0)
    order = counts.sum().sort_values(ascending=False, kind="stable").index
    return counts[["none"] * ("none" in order) + [code for code in order if code != "none"]]
