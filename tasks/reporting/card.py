"""The model cards of a study's trained folders with their scores on test, which the folders' own README.md cannot have:
it is of the stage that trained them, before there was a test.
"""

from pathlib import Path

import pandas as pd

from tasks.params import Params
from tasks.reporting.study import StudyError


def cards(params: Params, table: pd.DataFrame, policies: Path) -> dict[str, str]:
    """{POLICY-K-SEED: the text of its README.md, front matter too, and what the report found}. `table` is `results`.

    `StudyError` names a card that is missing.
    """
    found = table.set_index(["policy", "k"])
    texts = {}
    for policy in params.grid.policy:
        for k in params.grid.k:
            scores = _scores(found.loc[(policy, k)].dropna(), k, params.report.confidence)
            for seed in params.grid.seed:
                name = f"{policy}-{k}-{seed}"
                texts[name] = _read(policies / name / "README.md").rstrip() + scores
    return texts


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path} is missing; train {path.parent.name} again") from None


def _scores(row: pd.Series, k: int, confidence: float) -> str:
    """The end of a card: `row` is what results.csv says of this policy at `k`, without what is not there."""
    lines = [
        f"| {_heading(c)} | {_digits(row, c)} | {_digits(row, f'{c}_low')} to {_digits(row, f'{c}_high')} |"
        for c in row.index
        if f"{c}_low" in row.index
    ]
    seeds = row["num_seeds"]
    covered = "the choice of test questions"
    covered = f"{seeds} training seeds and {covered}" if seeds > 1 else f"{covered} alone"
    verdict = f"\n\nAgainst SFT: {row['verdict']}." if "verdict" in row.index else ""
    verdict += f" Not a fair comparison. {row['unfair']}" if row.get("unfair") else ""
    return (
        f"\n\n## Scores on test\n\nOf all seeds of this policy at k = {k}; the intervals cover {covered}.\n\n"
        f"| | mean | {100 * confidence:g}% interval |\n| --- | --- | --- |\n"
        + "\n".join(lines)
        + verdict
        + "\n\nThey hold for questions like those of this test set, with this prompt, and for no other.\n"
    )


def _heading(column: str) -> str:
    """'against_sft_ap50' -> 'ap50 minus SFT's'."""
    if not column.startswith("against_sft"):
        return column
    return f"{column.removeprefix('against_sft').removeprefix('_') or 'reward'} minus SFT's"


def _digits(row: pd.Series, column: str) -> str:
    return f"{row[column]:{'+' if column.startswith('against_sft') else ''}.3f}"
