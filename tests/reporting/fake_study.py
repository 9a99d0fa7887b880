"""A study as the stages would leave it: real scenes, answers with a policy's errors, graded by the real grader."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from tasks.data.questions import question
from tasks.data.records import Question, Record, pixel_hash, write_jsonl
from tasks.data.scenes import CATEGORIES, Glyph, compose, crop_to_ink
from tasks.grade import prediction, write_metrics
from tasks.graders.frame import frame
from tasks.graders.grounding import format_box
from tasks.graders.labels import format_label
from tasks.graders.parse import format_answer
from tasks.graders.rubric import make_grader
from tasks.params import Params, validate
from tasks.scoring.metrics import task_metrics

ROOT = Path(__file__).resolve().parents[2]
GENES = ("ARX", "BDN", "CLK", "DMX", "EPO", "FGR", "GLI", "HOX")
SCRIPT = "<think><script>alert('gotcha')</script> `` ``` </pre></think><answer>No Objects</answer>"
# Share of questions answered with nothing, unreadably, with a box elsewhere; spread of the corners in thousandths.
SKILL = {
    "base": (0.25, 0.15, 0.3, 45),
    "sft": (0.1, 0.05, 0.2, 28),
    "grpo": (0.05, 0.01, 0.1, 16),
    "ppo": (0.06, 0.02, 0.1, 20),
}
COUNTS = ("gradient_steps", "prompt_tokens_trained", "completion_tokens_trained", "prompt_tokens_sampled")
COUNTS += ("completion_tokens_sampled", "tokens_scored", "flops", "peak_memory")
BUDGETS = {
    "warmup": dict(zip(COUNTS, (20, 5_000, 9_000, 0, 0, 0, 1e12, 1e9), strict=True)),
    "sft": dict(zip(COUNTS, (100, 30_000, 50_000, 0, 0, 0, 7e12, 1.5e9), strict=True)),
    "grpo": dict(zip(COUNTS, (80, 40_000, 600_000, 40_000, 700_000, 740_000, 9e13, 2.5e9), strict=True)),
}
BUDGETS["ppo"] = BUDGETS["grpo"]


@dataclass(frozen=True)
class Workplace:
    params: Params
    grades: Path
    policies: Path
    pool: Path
    out: Path


def make_params(k=(1, 4), seed=(0, 1), num_pictures=8, algorithms=("grpo",), **sections) -> Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    grid = {"k": list(k), "seed": list(seed), "algorithm": list(algorithms), "policy": ["sft", *algorithms]}
    report = {"resamples": 400, "confidence": 0.95, "num_pictures": num_pictures}
    warmup = {**raw["sft"], "steps": 20}  # not SFT's: a stage of its own
    return validate({**raw, "grid": grid, "report": report, "warmup": warmup} | sections, "test")


def write_pool(pool: Path, num_pictures: int, task: str) -> list[Question]:
    """Questions of `task`; 'all' has those of every task about the same pictures."""
    source, rng = load_digits(), np.random.default_rng(0)

    def glyph() -> Glyph:
        n = rng.integers(len(source.images))
        return Glyph(int(source.target[n]), crop_to_ink((source.images[n] / 16).astype(np.float32)))

    (pool / "images").mkdir(parents=True)
    records = []
    for n in range(num_pictures):
        scene = compose(rng, glyph, int(rng.integers(1, 4)))
        image, file = Image.fromarray(scene.image), f"images/{n:05d}.png"
        image.save(pool / file)
        records.append(Record(f"test-{n}", file, image.width, image.height, pixel_hash(image), scene.objects))
    write_jsonl(pool / "test.jsonl", records)
    asked = [question(record, category) for record in records for category in record.categories]
    firsts = list({q.record_id: q for q in asked}.values())
    found = {
        "detection": asked,
        "classification": [
            replace(q, task="classification", asked="", boxes=(), label=f"class-{q.asked}") for q in firsts
        ],
        "grounding": [replace(q, task="grounding", asked=f"the first {q.asked}", boxes=q.boxes[:1]) for q in firsts],
    }
    if task == "maths":
        return [replace(q, task="maths", image=None, asked="3 + 4?", boxes=(), label="7") for q in firsts]
    if task == "ranking":
        return [replace(q, task="ranking", image=None, asked="Which gene?", boxes=(), label="ARX") for q in firsts]
    return [q for questions in found.values() for q in questions] if task == "all" else found[task]


def answer(rng: np.random.Generator, asked: Question, policy: str) -> str:
    nothing, unreadable, elsewhere, spread = SKILL[policy]
    draw = rng.random()
    think = asked.thoughts[0] if rng.random() < 0.8 else ", ".join(rng.choice(CATEGORIES, 2))
    if draw < nothing:
        return format_answer([], [], think)
    if draw < nothing + unreadable:
        return f"<think>{think}</think><answer>[{{'Position': [12, 430,"
    if asked.task == "maths":
        return frame("7" if draw > 0.5 else "8", think)
    if asked.task == "ranking":
        return frame(", ".join(rng.permutation(GENES)[: rng.integers(1, 8)]), think)
    if asked.task == "classification":
        return format_label(asked.label if draw > 0.5 else "class two", think)
    noise = rng.normal(0, spread, (len(asked.boxes), 4)) + (300 if draw < nothing + unreadable + elsewhere else 0)
    corners = np.clip(np.array(asked.boxes) + noise, 0, 1000)
    boxes = [(min(x1, 960), min(y1, 960), max(x2, x1 + 30, 30), max(y2, y1 + 30, 30)) for x1, y1, x2, y2 in corners]
    boxes = [(x1, y1, min(x2, 1000), min(y2, 1000)) for x1, y1, x2, y2 in boxes]
    if asked.task == "grounding":
        return format_box(boxes[0], think)
    return format_answer(boxes, rng.uniform(0.5, 0.99, len(boxes)).tolist(), think)


def write_grade(folder: Path, params: Params, policy: str, k, seed, questions: list[Question]) -> None:
    grader, rng = make_grader(params.reward), np.random.default_rng([len(policy), k or 0, seed or 0])
    rows = []
    for n, asked in enumerate(questions):
        completion = SCRIPT if n % 9 == 4 else answer(rng, asked, policy)
        grade = grader(completion, asked)
        rows.append(prediction(asked, completion, grade))
        if asked.task == "maths" and params.grade.samples:
            right = [bool(draw) for draw in rng.integers(0, 2, params.grade.samples)]
            rows[-1] |= {"right": right, "vote": "7" if right[0] else "8", "vote_right": right[0]}
    folder.mkdir(parents=True)
    write_jsonl(folder / "predictions.jsonl", rows)
    metrics = {"policy": policy, "k": k, "seed": seed, "existence": params.grade.existence, **task_metrics(rows)}
    write_metrics(metrics | {"failures": dict(Counter(r["failure"] for r in rows if r["failure"]))}, folder)


def write_history(folder: Path, params: Params, policy: str, k: int, seed: int) -> None:
    rng, length = np.random.default_rng([len(policy), k, seed]), 20 if policy == "warmup" else 100
    top = {"warmup": 0.55, "sft": 0.68, "grpo": 0.76, "ppo": 0.74}[policy] + 0.01 * k

    def curve(every: int, noise: float) -> list[dict]:
        steps = range(0, length + 1, every)
        return [{"step": s, "reward": top - 0.25 * np.exp(-s / 30) + rng.normal(0, noise)} for s in steps]

    val = curve(10, 0.01)
    steps = [{"step": 10, "loss": 0.5}] if policy in ("warmup", "sft") else curve(2, 0.03)
    best = max(val, key=lambda row: row["reward"])["step"]
    history = {"policy": policy, "k": k, "seed": seed, "seconds": 90.0 + 3 * length, "best_step": best}
    history |= {"budget": BUDGETS[policy], "train_sha256": f"{k}-{seed}" * 16}
    history |= {name: getattr(params, name).model_dump() for name in ("model", "prompt")}
    folder.mkdir(parents=True)
    (folder / "history.json").write_text(json.dumps({**history, "num_labelled": 10 * k, "steps": steps, "val": val}))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# The card of {folder.name}\n")


def write_study(root: Path, params: Params, num_pictures: int = 24, task: str = "detection") -> Workplace:
    study = Workplace(params, *(root / name for name in ("grades", "policies", "pool", "report")))
    questions = write_pool(study.pool, num_pictures, task)
    write_grade(study.grades / "base", params, "base", None, None, questions)
    for k in params.grid.k:
        for seed in params.grid.seed:
            if params.grid.init == "warmup":
                write_history(study.policies / f"warmup-{k}-{seed}", params, "warmup", k, seed)
            for policy in params.grid.policy:
                write_grade(study.grades / f"{policy}-{k}-{seed}", params, policy, k, seed, questions)
                write_history(study.policies / f"{policy}-{k}-{seed}", params, policy, k, seed)
                if policy in params.grid.rerank:
                    (study.grades / f"{policy}-{k}-{seed}" / "rerank.json").write_text(json.dumps({"rerank": 0.75}))
    return study
