"""Several sampled answers to one problem: the majority's, the one that a reward model likes best, and the chance that
one of k is right.
"""

from collections.abc import Callable, Sequence
from math import comb

VOTED = ("maths", "program")  # tasks whose answers can be the same in other words


def majority(stated: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """The place of the answer that most samples state, of its first sample; the earliest where several are stated as
    often; None where no sample states any. `same` says whether two stated texts are one answer: '1,234' and '1234.0'
    vote together.
    """
    parties: list[list[int]] = []
    for place, text in enumerate(stated):
        if text is None:
            continue
        party = next((p for p in parties if same(stated[p[0]], text)), None)
        if party is None:
            parties.append([place])
        else:
            party.append(place)
    return max(parties, key=len)[0] if parties else None


def best(scores: Sequence[float], readable: Sequence[bool]) -> int | None:
    """The place of the highest score among samples that state an answer, the earliest of equal ones; None without."""
    places = [place for place, states in enumerate(readable) if states]
    return max(places, key=lambda place: scores[place]) if places else None


def pass_at_k(num: int, num_right: int, k: int) -> float:
    """Chance that one of k of `num` samples is right, unbiased: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv
    2107.03374, eq. 1). ValueError for k above `num`.
    """
    if not 1 <= k <= num:
        raise ValueError(f"pass@{k} of {num} samples: take k in 1..{num}")
    return 1 - comb(num - num_right, k) / comb(num, k)
