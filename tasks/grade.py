"""Stage `grade`: a policy answers the test split. `python -m tasks.grade --pool data/pool --policy sft --k 4 --seed 0
--model policies/sft-4-0 --out grades/sft-4-0`

predictions.jsonl holds every question with the raw completion and its grade; metrics.json the means, what the task is
scored by (COCO AP, accuracy, IoU) and the failures by kind. The grader is the one that RFT was rewarded by. Decoding
is greedy.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from tasks.data.questions import ask
from tasks.data.records import Question, read_records, write_jsonl
from tasks.graders import Grade, make_grader
from tasks.models.coordinates import Coordinates
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor
from tasks.params import Params, load_params
from tasks.scoring.metrics import task_metrics, tasks_of


def test_questions(pool: Path, existence: str) -> list[Question]:
    """`ground_truth`: what each picture shows; `all`: every category of every picture."""
    categories = json.loads((pool / "categories.json").read_text())
    return ask(read_records(pool / "test.jsonl"), categories, len(categories) if existence == "all" else 0)


def prediction(question: Question, completion: str, grade: Grade) -> dict:
    return {
        "record_id": question.record_id,
        "image": question.image,
        "task": question.task,
        "asked": question.asked,
        "gold": question.boxes,
        "gold_label": question.label,
        "completion": completion,
        "boxes": grade.boxes,
        "confidences": grade.confidences,
        "label": grade.label,
        "reward": grade.reward,
        "sub_rewards": grade.sub_rewards,
        "failure": grade.failure,
    }


def grade(params: Params, pool: Path, model: Path | None, out: Path) -> dict:
    """Answer, grade, write predictions.jsonl; returns the metrics."""
    began = time.time()
    questions = test_questions(pool, params.grade.existence)
    processor = load_processor(params.model, model)
    completions = answer(
        load_model(params.model, model), processor, params.prompt, questions, pool, params.grade.batch_size,
        params.grade.max_new_tokens, progress=f"grade {out.name}",
    )  # fmt: skip
    grader = Coordinates(params.model.coordinates, processor, pool).reading(make_grader(params.reward))
    rows = [prediction(q, text, grader(text, q)) for q, text in zip(questions, completions, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "predictions.jsonl", rows)
    return {
        "tasks": tasks_of(rows),
        "existence": params.grade.existence,
        "num_questions": len(rows),
        "num_pictures": len({r["record_id"] for r in rows}),
        "reward": sum(r["reward"] for r in rows) / len(rows),
        **task_metrics(rows, params.slice.categories),
        "failures": dict(sorted(Counter(r["failure"] for r in rows if r["failure"]).items())),
        "seconds": round(time.time() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--k", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--model", type=Path, help="a trained folder; without it the base model of params.yaml")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    metrics = {"policy": args.policy, "k": args.k, "seed": args.seed}
    metrics |= grade(load_params(), args.pool, args.model, args.out)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
