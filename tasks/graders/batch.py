"""Many completions graded together, and what stops a run: too many that could not be graded.

A grader is a function of a completion and its question. One that is quicker with many (programs over a sandbox's
workers, a judge asked several things at once) is a `Batched`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tasks.data.records import Question

MOST_INVALID = 0.05

GradeAll = Callable[[Sequence[str], Sequence[Question]], list]  # a grade for each completion, in order


class InvalidRewards(RuntimeError):
    """Too many completions got no grade: the grader is broken or down, and going on with the rest would hide it."""


class Batched:
    """A grader made of a function that grades many."""

    def __init__(self, grade_all: GradeAll):
        self.grade_all = grade_all

    def __call__(self, completion: str, question: Question) -> Any:
        return self.grade_all([completion], [question])[0]


def grade_all(grader: Callable, completions: Sequence[str], questions: Sequence[Question]) -> list:
    """A grade for each completion, together where the grader can."""
    if isinstance(grader, Batched):
        return grader.grade_all(completions, questions)
    return [grader(completion, question) for completion, question in zip(completions, questions, strict=True)]


def stop_if_invalid(grader: Callable, reasons: Sequence[str], num: int) -> None:
    """`InvalidRewards` where more than MOST_INVALID of `num` completions got no grade, for these `reasons`."""
    if len(reasons) <= MOST_INVALID * num:
        return
    name = f"{getattr(grader, '__module__', '')}.{getattr(grader, '__qualname__', type(grader).__qualname__)}"
    kinds = "; ".join(f"{times} x {reason}" for reason, times in Counter(reasons).most_common(3))
    raise InvalidRewards(
        f"the grader {name} gave no reward for {len(reasons)} of {num} completions ({kinds}); "
        f"at most {MOST_INVALID:.0%} may be invalid: correct the grader"
    )
