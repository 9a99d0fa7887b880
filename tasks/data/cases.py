"""Case reports whose gene is to be found: the embedded twin of the rare-disease task of OpenAI's RFT announcement.

A fixed table says which symptoms each gene causes. A report names some that are present, some that are absent, with
noise, so that no reader is always right.

    A patient of 34 has cough, rash and fever, but not cramp or tremor. Which gene is it?
"""

from dataclasses import dataclass

import numpy as np

GENES = ("ARX", "BDN", "CLK", "DMX", "EPO", "FGN", "GLT", "HBX", "IRF", "KCN", "LMN", "MYB")
SYMPTOMS = (
    "fever", "rash", "cough", "cramp", "tremor", "ataxia", "anemia", "edema", "jaundice", "nausea", "deafness",
    "seizures", "fatigue", "myopia", "gout", "vertigo",
)  # fmt: skip
NUM_PRESENT, NUM_ABSENT = 3, 2
NOISE = 0.5  # a symptom of another gene is present too


def causes(gene: int) -> frozenset[int]:
    """The four symptoms (indices) of a gene: two genes share two of them at most, a symptom has two or four genes."""
    return frozenset((gene * 4 // 3 + step) % len(SYMPTOMS) for step in (0, 3, 7, 12))


@dataclass(frozen=True)
class Case:
    """A report and the gene that caused it; symptoms are indices in SYMPTOMS."""

    text: str
    gene: str
    present: tuple[int, ...]
    absent: tuple[int, ...]

    def evidence(self) -> np.ndarray:
        """(genes,) symptoms that speak for each gene minus those that speak against it."""
        return np.array(
            [len(causes(g) & set(self.present)) - len(causes(g) & set(self.absent)) for g in range(len(GENES))]
        )

    @property
    def thought(self) -> str:
        """The genes of every symptom that is present: 'cough: ARX BDN CLK; rash: ...'."""
        of = {s: " ".join(GENES[g] for g in range(len(GENES)) if s in causes(g)) for s in self.present}
        return "; ".join(f"{SYMPTOMS[s]}: {genes}" for s, genes in of.items())


def case(rng: np.random.Generator) -> Case:
    """A report about a random gene."""
    gene = int(rng.integers(len(GENES)))
    own = sorted(causes(gene))
    others = [s for s in range(len(SYMPTOMS)) if s not in own]
    present = list(rng.choice(own, NUM_PRESENT, replace=False))
    if rng.random() < NOISE:
        present.append(rng.choice(others))
    present = [int(s) for s in rng.permutation(present)]
    absent = [int(s) for s in rng.choice([s for s in others if s not in present], NUM_ABSENT, replace=False)]
    *most, last = (SYMPTOMS[s] for s in present)
    without = " or ".join(SYMPTOMS[s] for s in absent)
    age = int(rng.integers(1, 90))
    text = f"A patient of {age} has {', '.join(most)} and {last}, but not {without}. Which gene is it?"
    return Case(text, GENES[gene], tuple(present), tuple(absent))
