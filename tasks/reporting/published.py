"""A paper's figures beside a study's (published.yaml): read only where the study names them in report.published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tasks.reporting.compare import Comparison
from tasks.reporting.study import StudyError

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Row:
    """Shares in 0..1; None where the paper, or the study, has no such figure."""

    k: int
    policy: str
    published: float | None
    ours: float | None


@dataclass(frozen=True)
class Published:
    source: str
    metric: str
    rows: tuple[Row, ...]


def published(name: str | None, comparisons: Sequence[Comparison]) -> Published | None:
    """The table `name` with what this study measured. `StudyError` names those that there are."""
    if name is None:
        return None
    tables = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    if name not in tables:
        raise StudyError(f"report.published {name!r} is not in {FILE.name}; there are {', '.join(tables)}, or null")
    table = tables[name]
    rows = tuple(
        Row(
            comparison.k,
            score.policy,
            _at(table["scores"], score.policy, comparison.k),
            score.metrics.get(table["metric"]),
        )
        for comparison in comparisons
        for score in comparison.scores
    )
    return Published(table["source"], table["metric"], rows)


def _at(scores: dict, policy: str, k: int) -> float | None:
    found = scores.get(policy)
    percent = found.get(k) if isinstance(found, dict) else found
    return None if percent is None else percent / 100
