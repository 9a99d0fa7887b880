"""The embedded problems in words, written to disk as their real twins come (GSM8K's JSONL; our own rows) and read back
as a user's own data would be.

Splits are disjoint by their words: a text that was drawn before, in any split, is drawn again.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tasks.data.cases import GENES, REVISED, Case, case
from tasks.data.records import DataError, text_hash, write_jsonl
from tasks.data.stories import Story, story
from tasks.params import WordsDataset
from tasks.schema.dataset import FileDataset, Gsm8kDataset, ProblemsDataset

SPLITS = ("train", "val", "test")
NUM_RANKED = 5  # genes that the gold answer of a case names
MOST_DRAWS = 1000  # in a row that give no new text

RESULT = re.compile(r"(\S+) (\S+) (\S+) = (\S+)")


def gsm8k_row(told: Story) -> dict:
    """GSM8K's form, calculator marks included: '3 + 4 = <<3+4=7>>7'."""
    chain = RESULT.sub(lambda m: f"{m[1]} {m[2]} {m[3]} = <<{m[1]}{m[2]}{m[3]}={m[4].rstrip(';')}>>{m[4]}", told.chain)
    return {"question": told.text, "answer": f"{chain}\n#### {told.answer}"}


def program_row(told: Story) -> dict:
    return {"question": told.text, "answer": told.answer, "chains": [told.program], "task": "program"}


def case_row(report: Case) -> dict:
    """The right gene, then those that most evidence speaks for, as the gold ranking."""
    order = sorted(range(len(GENES)), key=lambda g: (GENES[g] != report.gene, -report.evidence()[g], g))
    return {
        "question": report.text,
        "answer": [GENES[g] for g in order[:NUM_RANKED]],
        "chains": [report.thought],
        "task": "ranking",
    }


def _rows(params: WordsDataset, rng: np.random.Generator) -> Iterator[dict]:
    """Rows without end, of any words."""
    fewest, most = params.num_steps
    write: Callable[[Story], dict] = gsm8k_row if params.task == "stories" else program_row
    while True:
        if params.task == "cases":
            yield case_row(case(rng, REVISED))
        else:
            yield write(story(rng, int(rng.integers(fewest, most + 1))))


def write_words(params: WordsDataset, folder: Path) -> FileDataset:
    """Write the three splits into `folder`; returns the data set that they are. DataError where there are not enough
    different texts.
    """
    folder.mkdir(parents=True)
    seen: set[str] = set()
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng([params.seed, 2, number])
        rows, draws = [], 0
        for row in _rows(params, rng):
            if len(rows) == getattr(params, f"num_{split}"):
                break
            words = text_hash(row["question"])
            draws = draws + 1 if words in seen else 0
            if draws > MOST_DRAWS:
                raise DataError(f"dataset.num_{split}: only {len(rows)} different texts were found; lower it")
            if not draws:
                rows.append(row)
            seen.add(words)
        write_jsonl(folder / f"{split}.jsonl", rows)
    files = {split: {"rows": str(folder / f"{split}.jsonl")} for split in SPLITS}
    if params.task == "stories":
        return Gsm8kDataset(source="gsm8k", **files)
    return ProblemsDataset(source="problems", **files)
