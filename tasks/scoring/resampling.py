"""A policy's score with each seed, and the same on resamples of the test pictures: what `statistics` works on.

All questions about a picture are one cluster: pictures are drawn, never questions. n - 1 of n are drawn, which makes
the variance of a mean unbiased (Rao and Wu 1988). Every seed answers the same pictures, so seeds and pictures are
crossed: all seeds, and all policies that are compared, are read on the same draws.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tasks.scoring.coco import THRESHOLDS, Matches, average_precision, mean_ap

CHUNK = 250  # replicates held at once: keeps memory at CHUNK x boxes floats


@dataclass(frozen=True)
class PictureMean:
    """Mean reward over the `num_questions` questions about one picture."""

    mean: float
    num_questions: int


# Training seed (None: a policy without one, the base model) -> picture id -> mean reward.
PolicyScores = Mapping[int | None, Mapping[str, PictureMean]]


@dataclass(frozen=True)
class Resampled:
    """A score (a mean reward, an AP, or a difference of two) by seed. `seeds` is (None,) for the base model."""

    seeds: tuple[int | None, ...]
    estimates: np.ndarray  # (S,)
    replicates: np.ndarray  # (resamples, S)
    questions: dict[str, int]  # picture -> questions about it

    @property
    def estimate(self) -> float:
        """Every seed counts alike."""
        return float(self.estimates.mean())

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The difference seed by seed on the same pictures. The base model stands against every seed of the other.

        Raises ValueError when the questions or the seeds of the two differ.
        """
        _same_questions(self.questions, other.questions, "the two policies")
        if None not in (*self.seeds, *other.seeds) and self.seeds != other.seeds:
            raise ValueError(
                f"seeds {list(self.seeds)} and {list(other.seeds)} cannot be paired; grade both policies with the same "
                "seeds"
            )
        seeds = other.seeds if self.seeds == (None,) else self.seeds
        estimates, replicates = self.estimates - other.estimates, self.replicates - other.replicates
        return Resampled(seeds, estimates, replicates, self.questions)


def picture_means(rows: Iterable[Mapping], key: str = "reward") -> dict[str, PictureMean]:
    """Prediction rows of one policy and seed, clustered by picture (`record_id`)."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["record_id"], []).append(row[key])
    return {picture: PictureMean(sum(v) / len(v), len(v)) for picture, v in values.items()}


def resample_means(scores: PolicyScores, *, resamples: int = 2000, seed: int = 0) -> Resampled:
    """The mean reward of a question. Deterministic in `seed`.

    Raises ValueError unless every training seed has the same questions, about at least two pictures.
    """
    seeds, questions = _checked({s: {p: m.num_questions for p, m in means.items()} for s, means in scores.items()})
    values = np.array([[scores[s][picture].mean for picture in questions] for s in seeds])  # (S, P)
    if not np.isfinite(values).all():
        raise ValueError("a mean reward is not finite; grade the policy again")
    weights = np.array(list(questions.values()), dtype=float)  # (P,)

    def means(counts: np.ndarray) -> np.ndarray:
        drawn = counts * weights
        return drawn @ values.T / drawn.sum(axis=1, keepdims=True)

    return Resampled(seeds, *_on_all_and_on_draws(means, len(weights), resamples, seed), questions)


def resample_ap(matches: Mapping[int | None, Matches], *, resamples: int = 2000, seed: int = 0) -> dict[str, Resampled]:
    """{"ap", "ap50", "ap75"}: AP added up again on every draw of pictures, from one matching a training seed.

    The estimates are those of pycocotools. Deterministic in `seed`. A draw may hold no picture of a rare category: AP
    is then the mean over the others, as COCO has it. AP is higher on a small set than on a large one, as it takes the
    best precision at any higher recall: an interval is about the AP of sets as large as this.

    Raises as `resample_means`.
    """
    seeds, questions = _checked({s: found.questions for s, found in matches.items()})

    def aps(counts: np.ndarray) -> np.ndarray:  # (num, S, names)
        return np.stack(
            [np.stack(list(mean_ap(average_precision(matches[s], counts)).values()), axis=-1) for s in seeds], axis=1
        )

    estimates, replicates = _on_all_and_on_draws(aps, len(questions), resamples, seed)
    return {name: Resampled(seeds, estimates[:, i], replicates[..., i], questions) for i, name in enumerate(THRESHOLDS)}


def draws(num_pictures: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each picture is drawn: chunks (num, pictures), `resamples` in all; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        num = min(CHUNK, resamples - start)
        drawn = rng.integers(0, num_pictures, (num, num_pictures - 1)) + num_pictures * np.arange(num)[:, None]
        yield np.bincount(drawn.ravel(), minlength=num * num_pictures).reshape(num, num_pictures)


def _on_all_and_on_draws(
    score: Callable[[np.ndarray], np.ndarray], num_pictures: int, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    everything = score(np.ones((1, num_pictures), dtype=int))[0]
    return everything, np.concatenate([score(counts) for counts in draws(num_pictures, resamples, seed)])


def _checked(asked: Mapping[int | None, Mapping[str, int]]) -> tuple[tuple, dict[str, int]]:
    """Seeds in order, and each picture's number of questions, in the order of the pictures."""
    if not asked:
        raise ValueError("no graded run; grade the policy first")
    if None in asked and len(asked) > 1:
        raise ValueError(f"runs with and without a seed in one policy: {list(asked)}; keep them apart")
    seeds = tuple(sorted(asked))
    questions = dict(sorted(asked[seeds[0]].items()))
    for seed in seeds[1:]:
        _same_questions(questions, asked[seed], f"seeds {seeds[0]} and {seed}")
    if len(questions) < 2:
        raise ValueError(
            f"{len(questions)} picture(s): an interval over pictures needs at least two; enlarge the test set"
        )
    return seeds, questions


def _same_questions(a: Mapping[str, int], b: Mapping[str, int], who: str) -> None:
    differing = sorted(picture for picture in a.keys() | b.keys() if a.get(picture) != b.get(picture))
    if differing:
        raise ValueError(f"{who} were not asked the same about {len(differing)} picture(s), e.g. {differing[0]!r}")
