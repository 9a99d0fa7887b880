"""Case reports whose gene is to be found: the embedded twin of the rare-disease task of OpenAI's RFT announcement.

A table says which symptoms each gene causes. A report names some that are present, some that are absent, with noise,
so that no reader is always right. The shipped base model was taught the table FIRST; the study's reports follow
REVISED, in which four genes of twelve are others: what is to be learned from a few reports.

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


Table = tuple[frozenset[int], ...]  # the four symptoms (indices) of each gene

# Two genes share two symptoms at most, a symptom has two or four genes.
FIRST: Table = tuple(
    frozenset((gene * 4 // 3 + step) % len(SYMPTOMS) for step in (0, 3, 7, 12)) for gene in range(len(GENES))
)
MOVED = {0: 3, 3: 6, 6: 9, 9: 0}  # ARX has what DMX had, and so on
REVISED: Table = tuple(FIRST[MOVED.get(gene, gene)] for gene in range(len(GENES)))


@dataclass(frozen=True)
class Case:
    """A report and the gene that caused it by the table; symptoms are indices in SYMPTOMS."""

    text: str
    gene: str
    present: tuple[int, ...]
    absent: tuple[int, ...]
    table: Table

    def evidence(self) -> np.ndarray:
        """(genes,) symptoms that speak for each gene minus those that speak against it."""
        return np.array([len(causes & set(self.present)) - len(causes & set(self.absent)) for causes in self.table])

    @property
    def thought(self) -> str:
        """The genes of every symptom that is present: 'cough: ARX BDN CLK; rash: ...'."""
        pairs = list(zip(GENES, self.table, strict=True))
        of = {s: " ".join(gene for gene, causes in pairs if s in causes) for s in self.present}
        return "; ".join(f"{SYMPTOMS[s]}: {genes}" for s, genes in of.items())


def case(rng: np.random.Generator, table: Table) -> Case:
    """A report about a random gene."""
    gene = int(rng.integers(len(GENES)))
    own = sorted(table[gene])
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
    return Case(text, GENES[gene], tuple(present), tuple(absent), table)
