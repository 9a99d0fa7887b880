"""What the shipped base model can do before any fine-tuning: `python -m tasks.models.measure --model models/tiny`.

Prints a JSON line for each embedded task, those of pictures on print (fresh scenes) and on handwriting (train pictures
of the embedded set; the test pictures stay unseen), those in words on the study's train problems: mean reward of the
greedy answers, its parts, and the head room of RFT: the mean and the best of 8 sampled answers. Detection questions are
about categories that the picture shows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from tasks.data.digits import as_files, write_task
from tasks.data.questions import ask
from tasks.data.records import read_records
from tasks.graders import make_grader
from tasks.models.coordinates import Coordinates
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor
from tasks.models.printed import printed_glyph
from tasks.params import EMBEDDED_TASKS, WORD_TASKS, DigitsDataset, Params, WordsDataset, load_params
from tasks.prepare import prepare

NUM_SCENES, NUM_SAMPLES = 150, 8


def printed_pool(dataset: DigitsDataset, folder: Path) -> None:
    """The embedded data set with printed digits in place of handwriting, as a pool."""
    rng = np.random.default_rng(12345)
    for split in ("train", "val", "test"):
        number = getattr(dataset, f"num_{split}")
        write_task(dataset.task, folder / "files" / split, lambda: printed_glyph(rng), number, rng)
    prepare(as_files(dataset, folder / "files"), folder / "pool")


def measure(params: Params, model_path: Path, pool: Path) -> dict[str, float]:
    """Means over the train questions of a pool."""
    questions = ask(read_records(pool / "train.jsonl"), [], 0)
    model, processor = load_model(params.model, model_path), load_processor(params.model, model_path)
    made = make_grader(params.reward, params.prompt.thinking)
    grader = Coordinates(params.model.coordinates, processor, pool).reading(made)

    def grades(temperature: float, samples: int):
        texts = answer(
            model, processor, params.prompt, questions, pool, 128, params.grade.max_new_tokens,
            temperature=temperature, samples=samples,
        )  # fmt: skip
        asked = [question for question in questions for _ in range(samples)]
        return [grader(text, q) for text, q in zip(texts, asked, strict=True)]

    greedy = grades(0.0, 1)
    samples = np.array([g.reward for g in grades(1.0, NUM_SAMPLES)]).reshape(-1, NUM_SAMPLES)
    return {
        "num_questions": len(questions),
        "reward": np.mean([g.reward for g in greedy]),
        **{name: np.mean([g.sub_rewards[name] for g in greedy]) for name in greedy[0].sub_rewards},
        "sampled_mean": samples.mean(),
        f"best_of_{NUM_SAMPLES}": samples.max(1).mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    params, sizes = load_params(), {"seed": 0, "num_train": NUM_SCENES, "num_val": 10, "num_test": 10}
    for task in (*EMBEDDED_TASKS, *WORD_TASKS):
        with tempfile.TemporaryDirectory() as scratch:
            pools = {world: Path(scratch) / world / "pool" for world in ("print", "handwriting")}
            if task in EMBEDDED_TASKS:
                dataset = DigitsDataset(source="digits", task=task, **sizes)
                prepare(dataset, pools["handwriting"])
                printed_pool(dataset, pools["print"].parent)
            else:
                pools = {"words": Path(scratch) / "pool"}
                prepare(WordsDataset(source="words", task=task, num_steps=[2, 4], **sizes), pools["words"])
            for world, pool in pools.items():
                row = {key: round(float(value), 4) for key, value in measure(params, args.model, pool).items()}
                print(json.dumps({"task": task, "world": world, **row}), flush=True)


if __name__ == "__main__":
    main()
