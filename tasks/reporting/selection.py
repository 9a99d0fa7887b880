"""Which test questions the page shows: as many of each outcome, drawn by a hash, so that nobody picks them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.reporting.study import Answer, Study

RIGHT = 0.5  # an IoU or label sub-reward above this is right
# Outcome -> (RFT right, SFT right), in the order of the page.
OUTCOMES = {
    "rft_only": (True, False),
    "sft_only": (False, True),
    "neither": (False, False),
    "both": (True, True),
}


@dataclass(frozen=True)
class Pair:
    """The same question answered by SFT and by RFT."""

    sft: Answer
    rft: Answer

    @property
    def order(self) -> str:
        return hashlib.sha256(":".join(self.sft.question).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """`num` questions of the test had this outcome; `shown` are some of them."""

    name: str
    num: int
    shown: tuple[Pair, ...]


def select(study: Study, algorithm: str, k: int, seed: int, num: int) -> tuple[Outcome, ...]:
    """`num` questions in turn from each outcome, an outcome that runs out leaving its turns to the others.

    An answer is right when its IoU or label sub-reward is above RIGHT. Within an outcome the order is by a hash of the
    question, so it depends neither on the answers nor on their order.
    """
    answers = {g.policy: g.answers for p in ("sft", algorithm) for g in study.grades(p, k) if g.seed == seed}
    pairs = [Pair(sft, rft) for sft, rft in zip(answers["sft"], answers[algorithm], strict=True)]
    by_outcome = {
        name: sorted(
            (p for p in pairs if (p.rft.content > RIGHT, p.sft.content > RIGHT) == right), key=lambda p: p.order
        )
        for name, right in OUTCOMES.items()
    }
    quotas = _quotas([len(found) for found in by_outcome.values()], num)
    return tuple(
        Outcome(name, len(found), tuple(found[:quota]))
        for (name, found), quota in zip(by_outcome.items(), quotas, strict=True)
    )


def _quotas(available: Sequence[int], num: int) -> list[int]:
    """`num` shared out one at a time over what is available."""
    quotas = [0] * len(available)
    while sum(quotas) < min(num, sum(available)):
        for i, most in enumerate(available):
            if quotas[i] < most and sum(quotas) < num:
                quotas[i] += 1
    return quotas
