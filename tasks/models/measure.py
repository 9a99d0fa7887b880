"""What the shipped base model can do before any fine-tuning: `python -m tasks.models.measure --model models/tiny`.

Prints JSON for print (fresh scenes) and for handwriting (train pictures of the embedded set; the test pictures stay
unseen): mean reward and IoU of the greedy answers, and the head room of RFT: the mean and the best of 8 sampled
answers. Questions are about categories that the picture shows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from tasks.data.coco import CocoSplit, read_coco
from tasks.data.digits import write_digits, write_scenes
from tasks.data.questions import question
from tasks.graders import make_grader
from tasks.models.generate import answer
from tasks.models.loading import load_model, load_processor
from tasks.models.printed import printed_glyph
from tasks.params import DigitsDataset, Params, load_params

NUM_SCENES, NUM_SAMPLES = 150, 8


def measure(params: Params, model_path: Path, split: CocoSplit) -> dict[str, float]:
    """Means over the questions about one set of pictures."""
    pictures, _ = read_coco(split, None)
    questions = [question(p.record, c) for p in pictures for c in p.record.categories]
    model, processor = load_model(params.model, model_path), load_processor(params.model, model_path)
    grader = make_grader(params.reward)

    def grades(temperature: float):
        texts = answer(
            model, processor, params.prompt, questions, split.images, 128, params.grade.max_new_tokens,
            temperature=temperature,
        )  # fmt: skip
        return [grader(text, q) for text, q in zip(texts, questions, strict=True)]

    greedy = grades(0.0)
    samples = np.array([[g.reward for g in grades(1.0)] for _ in range(NUM_SAMPLES)])  # (samples, questions)
    return {
        "num_questions": len(questions),
        "reward": np.mean([g.reward for g in greedy]),
        "iou": np.mean([g.sub_rewards["iou"] for g in greedy]),
        "format": np.mean([g.sub_rewards["format"] for g in greedy]),
        "sampled_mean": samples.mean(),
        f"best_of_{NUM_SAMPLES}": samples.max(0).mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    handwriting = DigitsDataset(source="digits", seed=0, num_train=NUM_SCENES, num_val=1, num_test=1)
    with tempfile.TemporaryDirectory() as scratch:
        rng = np.random.default_rng(12345)
        splits = {
            "print": write_scenes(Path(scratch) / "print", lambda: printed_glyph(rng), NUM_SCENES, rng),
            "handwriting": write_digits(handwriting, Path(scratch))["train"],
        }
        for name, split in splits.items():
            means = measure(params, args.model, split)
            print(json.dumps({name: {key: round(float(value), 4) for key, value in means.items()}}), flush=True)


if __name__ == "__main__":
    main()
