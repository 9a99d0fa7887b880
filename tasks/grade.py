"""Stage `grade`: a policy answers the test split. `python -m tasks.grade --pool data/pool --policy sft --k 4 --seed 0
--model policies/sft-4-0 --existence grades/base/existence.json --out grades/sft-4-0`

predictions.jsonl holds every question with the raw completion and its grade; metrics.json the means, what the task is
scored by (COCO AP, accuracy, IoU; with `grade.sam` IoU of masks); details.json that by category, and the failures by
kind. The grader is the one that RFT was rewarded by. Decoding is greedy. Which categories a picture is asked for is
`grade.existence`; with `model` the base model decides for all policies, by the existence.json that its own grading
leaves. samples.jsonl holds what was sampled of problems in words (`grade.samples`), for the stage `rerank`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from tasks.data.questions import ask, ask_all
from tasks.data.records import Box, Question, read_records, write_jsonl
from tasks.graders import Grade, make_grader
from tasks.graders.batch import grade_all, stop_if_invalid
from tasks.graders.frame import Failure
from tasks.graders.judges import same_answer
from tasks.graders.sandbox import isolations
from tasks.models.coordinates import Coordinates, Grader
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor
from tasks.models.sam import Segmenter
from tasks.params import Params, load_params
from tasks.scoring.masks import gold_mask, overlap
from tasks.scoring.metrics import task_metrics, tasks_of
from tasks.scoring.votes import VOTED, majority

DETAILS = ("ap_by_category", "accuracy_by_class", "failures")  # a number a category or kind: columns of `dvc metrics`


def test_questions(pool: Path, existence: str) -> list[Question]:
    """`ground_truth`: what each picture shows; `all` and `model`: every category of every picture."""
    categories, records = json.loads((pool / "categories.json").read_text()), read_records(pool / "test.jsonl")
    return ask(records, categories, 0) if existence == "ground_truth" else ask_all(records, categories)


def frequencies(pool: Path) -> dict[str, str]:
    """{category: LVIS's f, c or r}; nothing of other data."""
    return json.loads((pool / "pool.json").read_text(encoding="utf-8"))["frequency"]


def prediction(question: Question, completion: str, grade: Grade) -> dict:
    return {
        "record_id": question.record_id,
        "image": question.image,
        "task": question.task,
        "asked": question.asked,
        "gold": question.boxes,
        "gold_label": question.label,
        "ignore": question.ignore,
        "exhaustive": question.exhaustive,
        "completion": completion,
        "boxes": grade.boxes,
        "confidences": grade.confidences,
        "label": grade.label,
        "rank": grade.rank,
        "reward": grade.reward,
        "sub_rewards": grade.sub_rewards,
        "failure": grade.failure,
    }


def seen(rows: list[dict]) -> dict[str, list[str]]:
    """{picture: categories of which its detection rows state a box}: what the base model says is there."""
    found: dict[str, list[str]] = {row["record_id"]: [] for row in rows}
    for row in rows:
        if row["task"] == "detection" and row["boxes"]:
            found[row["record_id"]].append(row["asked"])
    return found


def is_asked(question: Question, existence: dict[str, list[str]] | None) -> bool:
    """Whether an existence map (None: no limit) lets a question through; only detection is limited."""
    return existence is None or question.task != "detection" or question.asked in existence[question.record_id]


def grade(params: Params, pool: Path, model: Path | None, out: Path, existence: Path | None) -> dict:
    """Answer, grade, write predictions.jsonl and existence.json; returns the metrics.

    `existence` is the base model's map, None for the base model itself. In mode `model`, an object of a category that
    is not in the map counts as missed by every policy, and the other categories that are not are not counted.
    """
    began = time.time()
    mode = params.grade.existence
    limit = json.loads(existence.read_text()) if mode == "model" and existence else None
    everything = test_questions(pool, mode)
    questions = [q for q in everything if is_asked(q, limit)]
    segmenter = make_segmenter(params.grade.sam, questions, pool)
    processor, policy = load_processor(params.model, model), load_model(params.model, model)
    completions = answer(
        policy, processor, params.prompt, questions, pool, params.grade.batch_size,
        params.grade.max_new_tokens, progress=f"grade {out.name}",
    )  # fmt: skip
    made = make_grader(params.reward, params.prompt.thinking)
    grader = Coordinates(params.model.coordinates, processor, pool).reading(made)
    grades = grade_all(grader, completions, questions)
    stop_if_invalid(grader, [g.invalid for g in grades if g.invalid], len(grades))
    rows = [prediction(*row) for row in zip(questions, completions, grades, strict=True)]
    if segmenter:
        for row, question in zip(rows, questions, strict=True):
            row["mask_overlap"] = mask_overlap(segmenter, question, row["boxes"], pool)
    voters = [n for n, q in enumerate(questions) if q.task in VOTED] if params.grade.samples else []
    samples = sample(params, policy, processor, [questions[n] for n in voters], pool, grader) if voters else []
    for n, sampled in zip(voters, samples, strict=True):
        rows[n] |= {"right": sampled["right"], **vote(params, questions[n], sampled)}
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "samples.jsonl", samples)
    if existence is None:
        (out / "existence.json").write_text(json.dumps(seen(rows), ensure_ascii=False) + "\n")
    if mode == "model":
        answered = dict(zip(questions, rows, strict=True))
        rows = limited(everything, answered, limit or seen(rows), grader)
    write_jsonl(out / "predictions.jsonl", rows)
    return {**metrics_of(rows, params, pool), "seconds": round(time.time() - began, 1)}


def metrics_of(rows: list[dict], params: Params, pool: Path) -> dict:
    return {
        "tasks": tasks_of(rows),
        "existence": params.grade.existence,
        "num_questions": len(rows),
        "num_pictures": len({r["record_id"] for r in rows}),
        "reward": sum(r["reward"] for r in rows) / len(rows),
        **task_metrics(rows, params.slice.categories, frequencies(pool)),
        **({"isolation": isolations()} if isolations() else {}),
        "failures": dict(sorted(Counter(r["failure"] for r in rows if r["failure"]).items())),
    }


def write_metrics(metrics: dict, out: Path) -> None:
    details = {name: metrics[name] for name in DETAILS if name in metrics}
    for file, told in (("metrics", {n: v for n, v in metrics.items() if n not in details}), ("details", details)):
        (out / f"{file}.json").write_text(json.dumps(told, indent=2) + "\n")


def make_segmenter(sam: str | None, questions: Sequence[Question], pool: Path) -> Segmenter | None:
    """ValueError where it is asked for and there is no mask to compare with."""
    if sam is None:
        return None
    if not any(question.mask for question in questions):
        raise ValueError(f"grade.sam: no question of {pool / 'test.jsonl'} has a mask; take LISA's data, or sam: null")
    return Segmenter(sam)


def mask_overlap(segmenter: Segmenter, question: Question, boxes: Sequence[Box], pool: Path) -> tuple[int, int] | None:
    """Pixels that the stated box's mask shares with the gold one, and pixels of either; None without a gold mask."""
    if not question.mask:
        return None
    with Image.open(pool / question.image) as image:
        gold = gold_mask(question.mask, *image.size)
    return overlap(segmenter.mask(pool / question.image, boxes[0]) if boxes else None, *gold)


def sample(
    params: Params, model: PreTrainedModel, processor: ProcessorMixin, questions: list[Question], pool: Path,
    grader: Grader,
) -> list[dict]:  # fmt: skip
    """For each problem {"record_id", "task", "asked"} and, one a sample, "completions", "stated" (None: no answer) and
    "right".
    """
    num, options = params.grade.samples, params.grade
    texts = answer(
        model, processor, params.prompt, questions, pool, options.batch_size, options.max_new_tokens,
        progress="samples", temperature=options.temperature, samples=num,
    )  # fmt: skip
    graded, found = grade_all(grader, texts, [question for question in questions for _ in range(num)]), []
    stop_if_invalid(grader, [g.invalid for g in graded if g.invalid], len(graded))
    for n, question in enumerate(questions):
        own, grades = (of_all[n * num : (n + 1) * num] for of_all in (texts, graded))
        named = {"record_id": question.record_id, "task": question.task, "asked": question.asked, "completions": own}
        right = [grade.sub_rewards["answer"] == 1 for grade in grades]
        found.append({**named, "stated": [grade.label for grade in grades], "right": right})
    return found


def vote(params: Params, question: Question, sampled: dict) -> dict:
    """{"vote": what the majority of the samples states, "vote_right"}."""
    winner = majority(sampled["stated"], partial(same_answer, rubric=getattr(params.reward, question.task)))
    if winner is None:
        return {"vote": None, "vote_right": False}
    return {"vote": sampled["stated"][winner], "vote_right": sampled["right"][winner]}


def limited(
    everything: list[Question], answered: dict[Question, dict], existence: dict, grader: Callable
) -> list[dict]:
    """The rows of what is asked, and one worth nothing for each object that is not asked for."""
    kept = []
    for q in everything:
        if is_asked(q, existence):
            kept.append(answered[q])
        elif q.boxes:
            kept.append(prediction(q, "", grader("", q)) | {"failure": Failure.NOT_ASKED})
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--k", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--model", type=Path, help="a trained folder; without it the base model of params.yaml")
    parser.add_argument("--existence", type=Path, help="the base model's existence.json; without it, this is the base")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    metrics = {"policy": args.policy, "k": args.k, "seed": args.seed}
    metrics |= grade(load_params(), args.pool, args.model, args.out, args.existence)
    write_metrics(metrics, args.out)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
