"""The smaller tables: what training cost, how answers fail, and the results for a spreadsheet or a paper."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from tasks.reporting import fairness
from tasks.reporting.compare import Comparison, Score
from tasks.reporting.study import History, Study
from tasks.reporting.words import name
from tasks.scoring.statistics import Interval

COSTS = {  # of history.json: budget; summed over the warm-up and RFT
    "gradient_steps": "Gradient steps",
    "prompt_tokens_trained": "Prompt tokens trained",
    "completion_tokens_trained": "Completion tokens trained",
    "prompt_tokens_sampled": "Prompt tokens sampled",
    "completion_tokens_sampled": "Completion tokens sampled",
    "tokens_scored": "Tokens scored",
    "flops": "FLOPs",
}


@dataclass(frozen=True)
class Cost:
    """What a policy cost at one k, means over seeds. RFT's holds that of what it began with; `counts` (COSTS) and
    `peak_memory` (bytes, the larger of the two) are None where a history does not tell.
    """

    k: int
    policy: str
    reward: float
    num_labelled: str
    counts: dict[str, float | None]
    minutes: float
    peak_memory: float | None
    kept: str

    @property
    def row(self) -> dict[str, str | float | None]:
        """Columns of results.csv."""
        labelled = {"num_labelled": self.num_labelled}
        return labelled | self.counts | {"minutes": self.minutes, "peak_memory": self.peak_memory}


def costs(study: Study, comparisons: Sequence[Comparison]) -> list[Cost]:
    return [_cost(study, score, c.k) for c in comparisons for score in c.scores if score.policy in study.grid.policy]


def _cost(study: Study, score: Score, k: int) -> Cost:
    policy = score.policy
    begun = {run.seed: run for run in study.trainings(study.grid.init, k)} if policy in study.grid.algorithm else {}
    runs = study.trainings(policy, k)
    stages = [[run, begun[run.seed]] if begun else [run] for run in runs]  # of each seed
    labelled = sorted({run.num_labelled for run in runs})
    return Cost(
        k,
        policy,
        score.reward.estimate,
        num_labelled=" to ".join(map(str, dict.fromkeys((labelled[0], labelled[-1])))),
        counts={count: _mean([_told(some, count, sum) for some in stages]) for count in COSTS},
        minutes=fmean(sum(run.seconds for run in some) for some in stages) / 60,
        peak_memory=_mean([_told(some, "peak_memory", max) for some in stages]),
        kept=", ".join(str(run.best_step) for run in runs),
    )


def _told(stages: Sequence[History], count: str, together) -> float | None:
    values = [(run.budget or {}).get(count) for run in stages]
    return None if None in values else together(values)


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else fmean(values)


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


def results(study: Study, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a policy and k: the reward with its interval, the metrics, the difference to SFT where there is one, and
    what the policy cost.
    """
    rows, unfair = [], " ".join(fairness.differences(study))
    paid = {(cost.k, cost.policy): cost.row for cost in costs(study, comparisons)}
    for comparison in comparisons:
        against = {d.policy: d for d in comparison.differences if d.other == "sft"}
        for score in comparison.scores:
            row = {"matched": study.grid.matched, "k": comparison.k, "policy": score.policy}
            row |= {"num_seeds": score.num_seeds}
            row |= {"reward": score.reward.estimate, "reward_low": score.reward.low, "reward_high": score.reward.high}
            row |= score.metrics | _ends(score.beside)
            if difference := against.get(score.policy):
                interval = difference.interval
                row |= {"against_sft": interval.estimate, "against_sft_low": interval.low}
                row |= {"against_sft_high": interval.high, "verdict": difference.verdict}
                row |= {"p_holm": difference.p_holm, "detectable": difference.detectable or None}
                row |= {"superiority": difference.superiority, "unfair": unfair}
                row |= {f"against_sft_{column}": value for column, value in _ends(difference.beside).items()}
            rows.append(row | paid.get((comparison.k, score.policy), {}))  # the base cost nothing
    return pd.DataFrame(rows)


def _ends(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """{'ap': ..., 'ap_low': ..., 'ap_high': ..., 'ap50': ...}."""
    ends = {"": "estimate", "_low": "low", "_high": "high"}
    return {
        f"{metric}{end}": getattr(found, field) for metric, found in intervals.items() for end, field in ends.items()
    }


def latex(study: Study, found: pd.DataFrame) -> str:
    """The `results` as a booktabs table (`\\usepackage{booktabs}`); a metric with its interval where it has one."""

    def span(row: pd.Series, value: str, sign: str = "") -> str:
        if pd.isna(row[value]):
            return ""
        return f"${row[value]:{sign}.3f}$ $[{row[value + '_low']:{sign}.3f}, {row[value + '_high']:{sign}.3f}]$"

    shown = pd.DataFrame({"$k$": found.k, "Policy": found.policy.map(name).map(_tex)})
    shown["Reward"] = found.apply(span, axis=1, value="reward")
    for metric, heading in study.headings.items():
        plain = found[metric].map("{:.3f}".format, na_action="ignore").fillna("")
        shown[_tex(heading)] = found.apply(span, axis=1, value=metric) if f"{metric}_low" in found else plain
    shown["Against SFT"] = found.apply(span, axis=1, value="against_sft", sign="+")
    columns = "rl" + "r" * (shown.shape[1] - 2)
    return shown.to_latex(index=False, escape=False, column_format=columns)


def _tex(text: str) -> str:
    return re.sub(r"[&%$#_{}]", r"\\\g<0>", text).replace(">", "$>$")
