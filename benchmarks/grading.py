"""Grading in batches against one question at a time: seconds, and whether the completions are the same.

`python -m benchmarks.grading [--json] [--pictures 40] [--batch-size 256]`

The shipped model answers greedily, by the code of validation and grading, every question about embedded pictures.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from tasks.data.questions import ask
from tasks.data.records import read_records
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor
from tasks.params import DigitsDataset, load_params
from tasks.prepare import prepare


def measure(num_pictures: int, batch_size: int) -> dict:
    """Seconds of each way, their ratio, and how many completions are equal."""
    params = load_params()
    model = load_model(params.model).to("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_processor(params.model)
    with tempfile.TemporaryDirectory() as name:
        pool = Path(name) / "pool"
        prepare(DigitsDataset(source="digits", seed=0, num_train=60, num_val=2, num_test=num_pictures), pool)
        questions = ask(read_records(pool / "test.jsonl"), (), 0)

        def timed(size: int) -> tuple[float, list[str]]:
            began = time.perf_counter()
            texts = answer(model, processor, params.prompt, questions, pool, size, params.grade.max_new_tokens)
            return time.perf_counter() - began, texts

        answer(model, processor, params.prompt, questions[:2], pool, 2, 2)  # what only the first call pays for
        (together, texts), (alone, expected) = timed(batch_size), timed(1)
    return {
        "questions": len(questions),
        "batch_size": batch_size,
        "seconds_batched": together,
        "seconds_one_at_a_time": alone,
        "ratio": alone / together,
        "equal": sum(text == other for text, other in zip(texts, expected, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=load_params().grade.batch_size)
    args = parser.parse_args()
    result = measure(args.pictures, args.batch_size)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(
        "{questions} questions: {seconds_batched:.1f} s in batches of {batch_size}, {seconds_one_at_a_time:.1f} s one "
        "at a time: {ratio:.1f} times as fast; {equal} of {questions} completions are equal".format(**result)
    )


if __name__ == "__main__":
    main()
