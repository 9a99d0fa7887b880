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
class Case:
    """A question as every policy answered it."""

    k: int
    answers: dict[str, Answer]

    @property
    def sft(self) -> Answer:
        return self.answers["sft"]

    def outcome(self, algorithm: str) -> str:
        right = self.answers[algorithm].content > RIGHT, self.sft.content > RIGHT
        return next(name for name, pattern in OUTCOMES.items() if pattern == right)

    def gain(self, algorithm: str) -> float:
        """The algorithm's reward minus SFT's."""
        return self.answers[algorithm].reward - self.sft.reward

    @property
    def category(self) -> str:
        """What a reader may want to look for; the instructions of grounding are all different."""
        return {"detection": self.sft.asked, "classification": self.sft.gold_label}.get(self.sft.task, self.sft.task)

    @property
    def order(self) -> str:
        return hashlib.sha256(":".join(self.sft.question).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """`num` questions of the test had this outcome for `algorithm` at `k`; `shown` are some of them."""

    name: str
    algorithm: str
    k: int
    num: int
    shown: tuple[Case, ...]


def select(study: Study, algorithm: str, k: int, seed: int, num: int) -> tuple[Outcome, ...]:
    """`num` questions in turn from each outcome, an outcome that runs out leaving its turns to the others.

    An answer is right when its IoU or label sub-reward is above RIGHT. Within an outcome the order is by a hash of the
    question, so it depends neither on the answers nor on their order.
    """
    runs = {p: next(g for g in study.grades(p, k) if g.seed in (seed, None)) for p in ("base", *study.grid.policy)}
    rows = zip(*(run.answers for run in runs.values()), strict=True)
    cases = sorted((Case(k, dict(zip(runs, row, strict=True))) for row in rows), key=lambda case: case.order)
    by_outcome = {name: [case for case in cases if case.outcome(algorithm) == name] for name in OUTCOMES}
    quotas = _quotas([len(found) for found in by_outcome.values()], num)
    return tuple(
        Outcome(name, algorithm, k, len(found), tuple(found[:quota]))
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
