"""Ask a model about one picture.

    python -m tasks.predict --model policies/grpo-4-0 --image P --ask six

prints one JSON line (the completion, its boxes in pixels, confidences, label and failure) and writes the picture with
the boxes in it. Without --model the base model of params.yaml answers.

Prompt, coordinates and length are those of params.yaml, decoding is greedy and the parser is the grader's: an answer
here is what `grade` would have graded.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import ProcessorMixin

from tasks.data.pictures import open_upright
from tasks.data.questions import fill
from tasks.data.records import Box, Question
from tasks.graders.frame import Failure
from tasks.graders.grounding import parse_grounding
from tasks.graders.labels import parse_label
from tasks.graders.parse import parse_detection
from tasks.models.coordinates import Coordinates
from tasks.models.generate import answer
from tasks.models.loading import ADAPTER, load_model, load_processor
from tasks.params import Params, ParamsError, load_params
from tasks.reporting.pictures import draw, rft_layer

PARSERS = {"detection": parse_detection, "grounding": parse_grounding, "classification": parse_label}


class PredictError(ValueError):
    """What cannot be asked; the message names the file or the value, and the fix."""


@dataclass(frozen=True)
class Stated:
    """What a completion states. Boxes are in thousandths of the picture's sides; detection has a confidence for each.
    With a parser's `failure` all are empty; `bad_format` comes with an answer that can be read.
    """

    boxes: tuple[Box, ...] = ()
    confidences: tuple[float, ...] = ()
    label: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Prediction(Stated):
    """The same with boxes in pixels, x1, y1, x2, y2 of the upright picture, and `annotated`, a PNG with them in it."""

    completion: str = ""
    annotated: bytes = b""


def read(completion: str, task: str) -> Stated:
    """What a completion in thousandths states, by the parser of its task. Never raises on a string."""
    parsed = PARSERS[task](completion)
    failure = parsed.failure or (None if parsed.well_formed else Failure.BAD_FORMAT)
    if task == "detection":
        boxes = tuple(scored.box for scored in parsed.boxes)
        return Stated(boxes, tuple(scored.confidence for scored in parsed.boxes), failure=failure)
    if task == "grounding":
        return Stated((parsed.box,) if parsed.box else (), failure=failure)
    return Stated(label=parsed.label, failure=failure)


def in_pixels(box: Box, size: tuple[int, int]) -> Box:
    """A box in thousandths as pixels, to a tenth, of a picture of `size` (width, height)."""
    return tuple(round(value * side / 1000, 1) for value, side in zip(box, size * 2, strict=True))


class Predictor:
    """A trained folder, or without one the base model of params.yaml, loaded to be asked about pictures."""

    def __init__(self, params: Params, folder: Path | None):
        if folder is not None and not any((folder / name).is_file() for name in ("config.json", ADAPTER)):
            raise PredictError(
                f"{folder}: no config.json, so no model; give a trained folder such as policies/sft-4-0, or none"
            )
        self._params = params
        self._processor = load_processor(params.model, folder)
        if not isinstance(self._processor, ProcessorMixin):
            raise PredictError(f"{folder or params.model.path}: reads text alone; give a model of pictures and text")
        self._model = load_model(params.model, folder)

    def predict(self, picture: Path, task: str, asked: str) -> Prediction:
        """The greedy answer about a JPEG, PNG or WebP file. `PredictError` for one that cannot be read, and for a task
        that has no prompt or is not told what to look for.
        """
        if task != "classification" and not asked.strip():
            raise PredictError(f"nothing asked: {task} needs a category or an instruction, such as --ask six")
        if not picture.is_file():
            raise PredictError(f"{picture}: no such picture")
        question = Question("asked", "picture.png", task, asked)
        try:
            fill(self._params.prompt, question)
            image = open_upright(picture)[0]
        except ValueError as error:
            raise PredictError(f"{picture}, asked for {task}: {error}") from None
        with TemporaryDirectory() as folder:
            pool = Path(folder)
            image.save(pool / question.image)
            completion, stated = self._answer(question, pool)
            tag = asked if task == "detection" else "answer"  # an instruction can be wider than the picture
            annotated = draw(pool / question.image, [rft_layer(tag, stated.boxes, stated.confidences)])
        boxes = tuple(in_pixels(box, image.size) for box in stated.boxes)
        return Prediction(boxes, stated.confidences, stated.label, stated.failure, completion, annotated)

    def _answer(self, question: Question, pool: Path) -> tuple[str, Stated]:
        """The completion in the model's own units, and what it states."""
        length = self._params.grade.max_new_tokens
        (completion,) = answer(self._model, self._processor, self._params.prompt, [question], pool, 1, length)
        units = Coordinates(self._params.model.coordinates, self._processor, pool)
        return completion, read(units.read(completion, question), question.task)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.predict", description="Ask a model about one picture.")
    parser.add_argument("--model", type=Path, help="a trained folder; without it the base model of params.yaml")
    parser.add_argument("--image", type=Path, required=True, help="a JPEG, PNG or WebP picture")
    parser.add_argument("--ask", default="", help="a category (detection) or an instruction (grounding)")
    parser.add_argument("--task", choices=PARSERS, default="detection", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("annotated.png"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    try:
        if args.out.resolve() == args.image.resolve():
            raise PredictError(f"{args.out}: --out would overwrite the picture; give another name")
        found = asdict(Predictor(load_params(), args.model).predict(args.image, args.task, args.ask))
    except (PredictError, ParamsError) as error:
        print(error, file=sys.stderr)
        return 2
    args.out.write_bytes(found.pop("annotated"))
    print(json.dumps({"completion": found.pop("completion"), **found, "picture": str(args.out)}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
