"""A graded study as typed rows: the base, every policy of the grid, and how each was trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tasks.data.records import Box, read_jsonl
from tasks.params import Grid
from tasks.scoring.metrics import METRICS, OPTIONAL, OWN, own_values

CONTENT = {"classification": "label", "maths": "answer", "program": "answer", "ranking": "answer"}  # others: the IoU


class StudyError(ValueError):
    """A grade or policy that the report needs is missing or cannot be used; the message names the file."""


@dataclass(frozen=True)
class Answer:
    """One question and what a policy answered. Boxes are in thousandths of the picture's sides."""

    record_id: str
    image: str | None  # relative to the pool; None: a problem in words
    task: str
    asked: str
    gold: tuple[Box, ...]
    gold_label: str | None
    completion: str
    boxes: tuple[Box, ...]
    confidences: tuple[float, ...]
    label: str | None
    reward: float
    content: float  # the sub-reward of what is stated: the label's, the answer's, the IoU; of a job, the reward
    failure: str | None
    ignore: tuple[Box, ...] = ()
    exhaustive: bool = True
    own: dict[str, float] = field(default_factory=dict, compare=False)  # what the task's own metrics are the means of

    @property
    def question(self) -> tuple[str, str, str, str]:
        """The gold boxes tell two instructions of the same words apart."""
        return self.record_id, self.task, self.asked, str(self.gold)


@dataclass(frozen=True)
class Graded:
    """A policy's answers to the test questions. `k` and `seed` are None for the base model.

    `metrics` are those that a table shows (`tasks.scoring.metrics.METRICS`) of the study's tasks, in 0..1.
    """

    policy: str
    k: int | None
    seed: int | None
    existence: str
    metrics: dict[str, float]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class History:
    """How a policy was trained. `steps` and `val` are rows with a `step`; other keys may be missing from a row.

    `budget` is what `tasks.models.budget` counts; `model` and `prompt` are the sections of params.yaml that it was
    trained with. They and the hash of its training questions are None where the history does not tell.
    """

    policy: str
    k: int
    seed: int
    seconds: float
    best_step: int
    num_labelled: int  # pictures, or problems
    steps: tuple[dict, ...]
    val: tuple[dict, ...]
    budget: dict | None = None
    model: dict | None = None
    prompt: dict | None = None
    train_sha256: str | None = None

    def curve(self, rows: str, value: str = "reward") -> pd.Series:
        """`value` of the `rows` ('steps' or 'val') by step; empty where none was recorded."""
        rows = {row["step"]: row[value] for row in getattr(self, rows) if row.get(value) is not None}
        return pd.Series(rows, dtype=float).sort_index()


@dataclass(frozen=True)
class Study:
    """All of a grid. Every policy answered the same questions, in the order of the base model's."""

    grid: Grid
    base: Graded
    graded: tuple[Graded, ...]
    histories: tuple[History, ...]

    def grades(self, policy: str, k: int) -> tuple[Graded, ...]:
        """One a seed; the base model, which has no k, stands beside every k."""
        if policy == "base":
            return (self.base,)
        return tuple(g for g in self.graded if (g.policy, g.k) == (policy, k))

    def trainings(self, policy: str, k: int) -> tuple[History, ...]:
        return tuple(h for h in self.histories if (h.policy, h.k) == (policy, k))

    @property
    def ks(self) -> tuple[int, ...]:
        """Ascending, whatever the order of the grid."""
        return tuple(sorted(self.grid.k))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the questions are about, in the order of METRICS."""
        present = {a.task for a in self.base.answers}
        return tuple(task for task in METRICS if task in present)

    @property
    def headings(self) -> dict[str, str]:
        """{metric: its heading} of the study's tasks."""
        shown = {metric: heading for task in self.tasks for metric, heading in METRICS[task].items()}
        found = set().union(*(graded.metrics for graded in (self.base, *self.graded)))
        return {metric: heading for metric, heading in shown.items() if metric in found}

    @property
    def own(self) -> dict[str, str]:
        """{metric: its heading}: those which have an interval and a difference beside the reward's."""
        own = {metric for task in self.tasks for metric in OWN.get(task, ())}
        return {metric: heading for metric, heading in self.headings.items() if metric in own}

    @property
    def num_questions(self) -> int:
        return len(self.base.answers)

    @property
    def unit(self) -> str:
        """What k and the test set count."""
        return "problem" if all(a.image is None for a in self.base.answers) else "picture"

    @property
    def num_pictures(self) -> int:
        """Or problems, each of one question."""
        return len({a.record_id for a in self.base.answers})


def read_study(grid: Grid, grades: Path, policies: Path) -> Study:
    """Read only the folders that `grid` names. `StudyError` names a file that is missing, broken or asks otherwise."""
    points = [(policy, k, seed) for k in grid.k for policy in grid.policy for seed in grid.seed]
    base = _read_grade(grades / "base", "base", None, None)
    graded = [_read_grade(grades / f"{p}-{k}-{seed}", p, k, seed, p in grid.rerank) for p, k, seed in points]
    trained = [("warmup", k, seed) for k in grid.k_warmup for seed in grid.seed] + points
    histories = [_read_history(policies / f"{p}-{k}-{seed}" / "history.json", p, k, seed) for p, k, seed in trained]
    return Study(grid, base, tuple(_as_asked(base, g, grades) for g in graded), tuple(histories))


def _read_grade(folder: Path, policy: str, k: int | None, seed: int | None, reranked: bool = False) -> Graded:
    metrics = _read_json(folder / "metrics.json", ("existence",))
    if reranked:
        metrics["rerank"] = _read_json(folder / "rerank.json", ("rerank",))["rerank"]
    path = folder / "predictions.jsonl"
    try:
        answers = tuple(map(_answer, read_jsonl(path)))
    except FileNotFoundError:
        raise _missing(path) from None
    except (KeyError, json.JSONDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error!r}); grade {folder.name} again") from None
    shown = {metric for task in {a.task for a in answers} for metric in METRICS[task]}
    if absent := sorted(shown - OPTIONAL - metrics.keys()):
        raise StudyError(f"{folder / 'metrics.json'} has no {', '.join(absent)}; grade {folder.name} again")
    return Graded(policy, k, seed, metrics["existence"], {m: metrics[m] for m in shown & metrics.keys()}, answers)


def _answer(row: dict) -> Answer:
    return Answer(
        record_id=row["record_id"],
        image=row["image"],
        task=row["task"],
        asked=row["asked"],
        gold=tuple(map(tuple, row["gold"])),
        gold_label=row["gold_label"],
        completion=row["completion"],
        boxes=tuple(map(tuple, row["boxes"])),
        confidences=tuple(row["confidences"]),
        label=row["label"],
        reward=row["reward"],
        content=row["reward"] if row["task"] == "job" else row["sub_rewards"][CONTENT.get(row["task"], "iou")],
        failure=row["failure"],
        ignore=tuple(map(tuple, row["ignore"])),
        exhaustive=row["exhaustive"],
        own=own_values(row),
    )


def _as_asked(base: Graded, graded: Graded, grades: Path) -> Graded:
    """`graded` with its answers in the order of the base model's questions."""
    by_question = {a.question: a for a in graded.answers}
    asked = [a.question for a in base.answers]
    differing = sorted(by_question.keys() ^ set(asked))
    if differing or len(graded.answers) != len(asked):
        path = grades / f"{graded.policy}-{graded.k}-{graded.seed}" / "predictions.jsonl"
        example = f", e.g. {differing[0]}" if differing else ""
        raise StudyError(f"{path} does not answer the questions of {grades / 'base'}{example}; grade both again")
    return Graded(**{**vars(graded), "answers": tuple(by_question[q] for q in asked)})


def _read_history(path: Path, policy: str, k: int, seed: int) -> History:
    row = _read_json(path, ("seconds", "best_step", "num_labelled"))
    steps, val = tuple(row.get("steps", ())), tuple(row.get("val", ()))
    optional = {name: row.get(name) for name in ("budget", "model", "prompt", "train_sha256")}
    return History(policy, k, seed, row["seconds"], row["best_step"], row["num_labelled"], steps, val, **optional)


def _read_json(path: Path, keys: tuple[str, ...]) -> dict:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except json.JSONDecodeError as error:
        raise StudyError(f"{path} is not JSON ({error}); run its stage again") from None
    if absent := [key for key in keys if key not in row]:
        raise StudyError(f"{path} has no {', '.join(absent)}; run its stage again")
    return row


def _missing(path: Path) -> StudyError:
    return StudyError(f"{path} is missing, but params.yaml: grid names it; `dvc repro` makes it")
