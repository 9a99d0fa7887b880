"""Several sampled answers to one problem: the majority's, and the chance that one of k is right."""

from collections.abc import Callable, Sequence
from math import comb

from tasks.graders.rubric import Grade


def majority(grades: Sequence[Grade], same: Callable[[str, str], bool]) -> Grade | None:
    """The grade of the answer that most samples state, the earliest where several are stated as often; None where no
    sample states any. `same` says whether two stated texts are one answer: '1,234' and '1234.0' vote together.
    """
    parties: list[list[Grade]] = []
    for grade in grades:
        if grade.label is None:
            continue
        party = next((p for p in parties if same(p[0].label, grade.label)), None)
        if party is None:
            parties.append([grade])
        else:
            party.append(grade)
    return max(parties, key=len)[0] if parties else None


def pass_at_k(num: int, num_right: int, k: int) -> float:
    """Chance that one of k of `num` samples is right, unbiased: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv
    2107.03374, eq. 1). ValueError for k above `num`.
    """
    if not 1 <= k <= num:
        raise ValueError(f"pass@{k} of {num} samples: take k in 1..{num}")
    return 1 - comb(num - num_right, k) / comb(num, k)
