"""Rewards of completions by THE grader. A reward that is none (the grader raised, NaN, inf) is masked and counted."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from tasks.data.records import Question

MOST_INVALID = 0.05


class InvalidRewards(RuntimeError):
    """Too many rewards of a step are none: the grader is broken, and training on the rest would hide it."""


def grade(
    grader: Callable, texts: Sequence[str], questions: Sequence[Question]
) -> tuple[list[float], dict[str, float]]:
    """Rewards, NaN where invalid, and the metrics `reward_<sub-reward>`, `failed_<kind>` (shares), `invalid` (share).

    Raises `InvalidRewards` when more than 5 % are invalid.
    """
    rewards, grades, invalid = [], [], Counter()
    for text, question in zip(texts, questions, strict=True):
        try:
            grade = grader(text, question)
        except Exception as error:  # whatever a grader does wrong is data here; too much of it stops the run below
            invalid[f"{type(error).__name__}: {error}"] += 1
            rewards.append(math.nan)
            continue
        if math.isfinite(grade.reward):
            rewards.append(grade.reward)
            grades.append(grade)
        else:
            invalid[f"a reward of {grade.reward}"] += 1
            rewards.append(math.nan)
    share = invalid.total() / len(texts)
    if share > MOST_INVALID:
        name = f"{getattr(grader, '__module__', '')}.{getattr(grader, '__qualname__', grader)}"
        kinds = "; ".join(f"{num} x {kind}" for kind, num in invalid.most_common(3))
        raise InvalidRewards(
            f"the grader {name} gave no reward for {invalid.total()} of {len(texts)} completions ({kinds}); "
            f"at most {MOST_INVALID:.0%} may be invalid: correct the grader"
        )
    metrics = {f"reward_{name}": fmean(g.sub_rewards[name] for g in grades) for name in grades[0].sub_rewards}
    failures = Counter(g.failure for g in grades if g.failure)
    metrics |= {f"failed_{kind}": num / len(texts) for kind, num in sorted(failures.items())}
    return rewards, {**metrics, "invalid": share}
