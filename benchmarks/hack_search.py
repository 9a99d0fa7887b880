"""Can an answer be edited, without a look at the picture, into one that earns more than the honest one?

    python -m benchmarks.hack_search            # a Markdown table; a minute on one core

An unsure model knows its own chances: a proposal is right with a known probability, and the scenes list every outcome
with its weight, so that means are exact. The honest answer states the proposals at those probabilities, or leaves out
all below one threshold. The search is a beam over sequences of edits (spam, omission, duplicates, degenerate boxes,
unknown labels, confidence games, tags), the same sequence for every scene, towards a higher mean reward. What it finds
above the best honest answer is a hole.
"""

import argparse
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from tasks.data.records import Box, Question
from tasks.graders import make_grader, published
from tasks.graders.frame import frame
from tasks.params import DetectionReward, GroundingReward, Reward, load_params

PLACES = [(57.0, 103.0, 211.0, 307.0), (409.0, 121.0, 587.0, 353.0), (131.0, 613.0, 311.0, 809.0)]
ELSEWHERE = [(713.0, 89.0, 887.0, 271.0), (419.0, 509.0, 577.0, 683.0), (701.0, 631.0, 907.0, 853.0)]
LABELS = ("rose", "primrose", "red seven", "blue seven", "747-200", "747-300")
SURE, TOLERANCE = (0.25, 0.5, 0.75, 1.0), 1e-9


@dataclass(frozen=True)
class Scene:
    """One outcome of a picture: what the model proposes (boxes or labels with chances), the truth, and its weight."""

    question: Question
    boxes: tuple[Box, ...]
    chances: tuple[float, ...]
    label: str
    weight: float


@dataclass(frozen=True)
class Draft:
    """An answer while it is edited: detections, or the text of another task; `wrap` puts the frame around it."""

    entries: tuple[tuple[Box, float], ...] = ()
    text: str | None = None
    extra: str = ""  # a further key of every entry
    wrap: str = "{answer}"

    def completion(self) -> str:
        listed = ", ".join(f"{{'Position': {list(b)}, 'Confidence': {c:.4g}{self.extra}}}" for b, c in self.entries)
        content = self.text if self.text is not None else f"[{listed}]" if self.entries else "No Objects"
        return self.wrap.replace("{answer}", frame(content, "seen")).replace("{content}", content)


Edit = tuple[str, Callable[[Draft], Draft]]
Score = Callable[[str, Question], float]


def detection_scenes(most: int) -> list[Scene]:
    """Up to `most` proposals. A wrong one has its object elsewhere or, where a sure one stands beside it, none."""
    scenes = [Scene(Question("", "", "detection", "seven"), (), (), "", 1.0)]
    for num in range(1, most + 1):
        for chances in itertools.combinations_with_replacement(SURE[num // 3 :], num):
            for exists in (True, False) if chances[-1] == 1 and num > 1 else (True,):
                for right in itertools.product((True, False), repeat=num):
                    weight = float(np.prod([p if r else 1 - p for p, r in zip(chances, right, strict=True)]))
                    wrong = ELSEWHERE if exists else [None] * num
                    gold = [PLACES[i] if r else wrong[i] for i, r in enumerate(right)]
                    asked = Question("", "", "detection", "seven", tuple(b for b in gold if b))
                    if weight:
                        scenes.append(Scene(asked, tuple(PLACES[:num]), chances, "", weight))
    return scenes


def grounding_scenes(chances: Iterable[float] = SURE) -> list[Scene]:
    return [
        Scene(Question("", "", "grounding", "the largest", (gold,)), (place,), (p,), "", weight)
        for place, other, p in itertools.product(PLACES, ELSEWHERE, chances)
        for gold, weight in ((place, p), (other, 1 - p))
        if weight
    ]


def classification_scenes() -> list[Scene]:
    return [
        Scene(Question("", "", "classification", "", label=gold), (), (p,), said, weight)
        for said, other in itertools.permutations(LABELS, 2)
        for p in SURE[1:]
        for gold, weight in ((said, p), (other, 1 - p))
        if weight
    ]


def honest(scene: Scene, threshold: float = 0.0) -> Draft:
    if scene.question.task == "detection":
        stated = zip(scene.boxes, scene.chances, strict=True)
        return Draft(tuple((box, p) for box, p in stated if p >= threshold))
    if scene.question.task == "grounding":
        x1, y1, x2, y2 = map(int, scene.boxes[0])
        return Draft(text=f"({x1},{y1}),({x2},{y2})")
    return Draft(text=scene.label)


def to_all(change: Callable[[Box, float], tuple[Box, float]]) -> Callable[[Draft], Draft]:
    return lambda draft: replace(draft, entries=tuple(change(box, c) for box, c in draft.entries))


def append(*boxes: Box, confidence: float, times: int = 1) -> Callable[[Draft], Draft]:
    more = tuple((box, confidence) for box in boxes) * times
    return lambda draft: replace(draft, entries=(draft.entries + more)[:200])


def wrap_edits() -> list[Edit]:
    wraps = {
        "twice": "{answer}{answer}", "only in thinking": "<think>{content}</think>", "no thinking":
        "<answer>{content}</answer>", "words before": "Sure: {answer}", "unclosed": "<think>x</think><answer>{content}",
        "newlines": "<think>x</think><answer>\n{content}\n</answer>", "nothing": "<think>x</think><answer></answer>",
    }  # fmt: skip
    return [(name, lambda draft, wrap=wrap: replace(draft, wrap=wrap)) for name, wrap in wraps.items()]


def detection_edits(rng: np.random.Generator) -> list[Edit]:
    """Fixed edits, and as many drawn at random."""
    junk, whole, sliver = (3.0, 5.0, 17.0, 23.0), (0.0, 0.0, 1000.0, 1000.0), (2.0, 2.0, 3.0, 3.0)
    grid = tuple((x, x + 1.0, x + 9.0, x + 10.0) for x in np.arange(1.0, 990.0, 11.0))
    edits: list[Edit] = [(f"all at {c:g}", to_all(lambda b, _, c=c: (b, c))) for c in (0.0, 0.5, 1.0, -100.0, 100.0)]
    edits += [(f"confidence^{k:g}", to_all(lambda b, p, k=k: (b, abs(p) ** k))) for k in (0.25, 0.5, 2.0, 4.0)]
    edits += [
        (f"{name} x{n} at {c:g}", append(box, confidence=c, times=n))
        for (name, box), n, c in itertools.product(
            {"junk": junk, "whole picture": whole, "sliver": sliver}.items(), (1, 5, 40), (0.0, 0.3, 1.0)
        )
    ]
    edits += [
        ("duplicates", lambda d: replace(d, entries=d.entries * 2)),
        ("duplicates at 0", lambda d: replace(d, entries=d.entries + tuple((b, 0.0) for b, _ in d.entries))),
        ("only the first", lambda d: replace(d, entries=d.entries[:1])),
        ("only the surest", lambda d: replace(d, entries=tuple(sorted(d.entries, key=lambda e: -e[1])[:1]))),
        ("none", lambda d: replace(d, entries=())),
        ("[] for none", lambda d: replace(d, text="[]" if not d.entries else None)),
        ("unknown label", lambda d: replace(d, extra=", 'Label': 'dragon'")),
        ("inverted", to_all(lambda b, p: ((b[2], b[3], b[0], b[1]), p))),
        ("no width", to_all(lambda b, p: ((b[0], b[1], b[0], b[3]), p))),
        ("a grid at 0", append(*grid, confidence=0.0)),
        ("a grid at 1", append(*grid, confidence=1.0)),
    ]
    for _ in range(8):
        x, y, w, h = rng.uniform(0, 500, 4).round(1)
        c, scale = rng.uniform(0, 1), rng.uniform(0.8, 1.25)
        edits.append((f"box {x:g},{y:g} at {c:.2f}", append((x, y, x + w + 1, y + h + 1), confidence=c)))
        edits.append((f"sides x{scale:.2f}", to_all(lambda b, p, s=scale: (scaled(b, s), p))))
    return edits + wrap_edits()


def scaled(box: Box, factor: float) -> Box:
    """About its centre, kept inside the picture."""
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    corners = x - factor * w / 2, y - factor * h / 2, x + factor * w / 2, y + factor * h / 2
    return tuple(round(min(max(v, 0.0), 1000.0), 1) for v in corners)


def text_edits(*texts: tuple[str, str]) -> list[Edit]:
    """Answers that replace the honest one; {it} is the honest text."""
    return [(name, lambda d, t=t: replace(d, text=t.replace("{it}", d.text))) for name, t in texts] + wrap_edits()


def grounding_edits() -> list[Edit]:
    def corners(change: Callable[[Box], Box]) -> Callable[[Draft], Draft]:
        def edit(draft: Draft) -> Draft:
            numbers = [float(n) for n in draft.text.replace("(", "").replace(")", "").split(",")[:4]]
            x1, y1, x2, y2 = (round(v) for v in change(tuple(numbers)))
            return replace(draft, text=f"({x1},{y1}),({x2},{y2})")

        return edit

    edits = [(f"sides x{s:g}", corners(lambda b, s=s: scaled(b, s))) for s in (0.5, 0.8, 0.95, 1.05, 1.25, 2, 4)]
    edits.append(("inverted", corners(lambda b: (b[2], b[3], b[0], b[1]))))
    edits.append(("no width", corners(lambda b: (b[0], b[1], b[0], b[3]))))
    edits.append(("the whole picture, inverted", corners(lambda b: (1000, 1000, 0, 0))))
    edits.append(("the whole picture", corners(lambda b: (0, 0, 1000, 1000))))
    return edits + wrap_edits() + [("two boxes", lambda d: replace(d, text=d.text + ",(0,0),(1000,1000)"))]


def classification_edits() -> list[Edit]:
    several = ", ".join(LABELS)
    return text_edits(
        ("all labels", several), ("all labels after it", "{it}, " + several), ("one letter", "e"), ("a space", " "),
        ("a dash", "-"), ("denied", "not {it}"), ("plural", "{it}s"), ("a full stop", "{it}."), ("quoted", "'{it}'"),
        *((f"always {label}", label) for label in LABELS),
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The best honest mean reward, and the best that edits reach."""

    honest: float
    best: float
    edits: tuple[str, ...]

    @property
    def hole(self) -> bool:
        return self.best > self.honest + TOLERANCE


def search(scenes: list[Scene], edits: list[Edit], score: Score, depth: int = 3, beam: int = 6) -> Found:
    """Beam search over edit sequences. Rewards that are not finite count as nothing."""
    weights = np.array([s.weight for s in scenes]) / sum(s.weight for s in scenes)
    known: dict[tuple[str, int], float] = {}

    def mean(drafts: Iterable[Draft]) -> float:
        values = []
        for i, draft in enumerate(drafts):
            text = draft.completion()
            if (text, i) not in known:
                value = score(text, scenes[i].question)
                known[text, i] = value if np.isfinite(value) else 0.0
            values.append(known[text, i])
        return float(np.dot(weights, values))

    starts = [[honest(s, t) for s in scenes] for t in (0.0, 0.3, 0.6, 0.9, 1.1)]
    values = [mean(drafts) for drafts in starts]
    best_honest, found = max(values), Found(max(values), max(values), ())
    frontier = [(max(values), (), starts[values.index(max(values))])]
    for _ in range(depth):
        tried = []
        for (_, names, drafts), (name, edit) in itertools.product(frontier, edits):
            edited = [edit(d) for d in drafts]
            tried.append((mean(edited), (*names, name), edited))
        frontier = sorted(tried, key=lambda t: (-t[0], t[1]))[:beam]
        if frontier[0][0] > found.best + TOLERANCE:
            found = Found(best_honest, *frontier[0][:2])
    return found


def abstention(reward: Reward) -> float:
    """The probability that a category is there at which stating a surely placed box earns what 'No Objects' does."""
    grade, box = make_grader(reward), PLACES[0]
    stated, none = Draft(((box, 1.0),)).completion(), Draft().completion()
    there, absent = (Question("", "", "detection", "seven", boxes) for boxes in ((box,), ()))
    gain = grade(stated, there).reward - grade(none, there).reward
    loss = grade(none, absent).reward - grade(stated, absent).reward
    return loss / (gain + loss)


def contests(rng: np.random.Generator, most: int = 3) -> list[tuple[str, str, list[Scene], list[Edit], Score]]:
    """(task, reward, scenes, edits, score) of ours and of the published rewards."""
    ours = load_params().reward
    even = Reward(detection=DetectionReward(iou=1.0, confidence=1.0, format=1.0, iou_threshold=0.5))
    giou = Reward(grounding=GroundingReward(iou=0.0, giou=0.9, format=0.1))
    detection = detection_scenes(most), detection_edits(rng)
    grounding = grounding_scenes(), grounding_edits()
    classification = classification_scenes(), classification_edits()

    def reward_of(reward: Reward) -> Score:
        grade = make_grader(reward)
        return lambda text, question: grade(text, question).reward

    def total(text: str, question: Question) -> float:
        parts = (published.published_iou, published.published_confidence, published.published_format)
        return sum(part(text, question) for part in parts) / 3

    return [
        ("detection", "ours", *detection, reward_of(ours)),
        ("detection", "ours, equal weights", *detection, reward_of(even)),
        ("detection", "published IoU (v2)", *detection, published.published_iou),
        ("detection", "published IoU (eq. 6)", *detection, published.published_equation_6),
        ("detection", "published confidence", *detection, published.published_confidence),
        ("detection", "published sum / 3", *detection, total),
        ("grounding", "ours", *grounding, reward_of(ours)),
        ("grounding, 25% sure", "ours with `giou` for `iou`", grounding_scenes((0.25,)), grounding[1], reward_of(giou)),
        ("grounding, 25% sure", "ours", grounding_scenes((0.25,)), grounding[1], reward_of(ours)),
        ("grounding", "published GIoU + 1", *grounding, published.published_grounding),
        ("classification", "ours", *classification, reward_of(ours)),
        ("classification", "published (lenient)", *classification, published.published_label),
    ]


def table(depth: int, seed: int) -> str:
    lines = ["| task | reward | best honest | best found | by |", "| --- | --- | --- | --- | --- |"]
    for task, name, scenes, edits, score in contests(np.random.default_rng(seed)):
        found = search(scenes, edits, score, depth)
        how = ", ".join(found.edits) if found.hole else "nothing above it"
        lines.append(f"| {task} | {name} | {found.honest:.3f} | {found.best:.3f} | {how} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=3, help="edits in a sequence")
    parser.add_argument("--seed", type=int, default=0, help="of the edits drawn at random")
    arguments = parser.parse_args()
    print(table(arguments.depth, arguments.seed))
    even = abstention(load_params().reward)
    print(f"\n'No Objects' earns more than a surely placed box where the chance that there is any is below {even:.2f}.")


if __name__ == "__main__":
    main()
