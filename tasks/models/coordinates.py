"""How each model family writes boxes, and the pair that stands between a model and the graders.

relative_1000     thousandths of the picture's sides (Qwen2-VL, Qwen3-VL, the shipped model)
absolute_resized  pixels of the picture as the processor resizes it (Qwen2.5-VL, arXiv 2502.13923, section 2.1.2)
absolute          pixels of the picture itself

With the wrong convention the IoU reward stays at 0 (Visual-RFT issues 119, 143, 232). `write` makes the SFT target of a
question, `read` brings a completion to thousandths; graders and records know nothing else.
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from transformers import ProcessorMixin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from tasks.data.records import Question
from tasks.graders.batch import Batched, grade_all
from tasks.graders.maths import Form
from tasks.graders.rubric import Grade
from tasks.graders.target import targets
from tasks.graders.units import THOUSANDTHS, Sides, to_thousandths
from tasks.params import Reward

Grader = Callable[[str, Question], Grade]


class Coordinates:
    """The units of a model whose questions are about pictures in `pool`. `reward` and the prompt's `thinking` say how
    SFT's answers are stated.
    """

    def __init__(
        self, convention: str, processor: ProcessorMixin, pool: Path, reward: Reward | None = None,
        thinking: bool = True,
    ):  # fmt: skip
        self._sides = {
            "relative_1000": lambda question: THOUSANDTHS,
            "absolute_resized": self._resized,
            "absolute": self._size,
        }[convention]
        self._processor, self._pool = processor, pool
        self._form: Form = reward.maths.form if reward and reward.maths else "tags"
        self._target = reward.job.target if reward and reward.job else None
        self._thinking = thinking
        self._sizes: dict[str, Sides] = {}

    def sides(self, question: Question) -> Sides:
        """How many units the question's picture has; boxes in words without a picture stay as they are."""
        return THOUSANDTHS if question.image is None else self._sides(question)

    def write(self, question: Question) -> list[str]:
        """The SFT targets, in the model's units."""
        return targets(question, self.sides(question), self._form, self._target, self._thinking)

    def read(self, completion: str, question: Question) -> str:
        """A completion of the model, with its boxes in thousandths."""
        return to_thousandths(completion, self.sides(question))

    def reading(self, grader: Grader) -> Grader:
        """`grader` of completions in the model's units."""
        if not isinstance(grader, Batched):
            return lambda completion, question: grader(self.read(completion, question), question)
        return Batched(
            lambda completions, questions: grade_all(grader, list(map(self.read, completions, questions)), questions)
        )

    def _size(self, question: Question) -> Sides:
        """Width and height in pixels; a header is read once."""
        if question.image not in self._sizes:
            with Image.open(self._pool / question.image) as image:
                self._sizes[question.image] = image.size
        return self._sizes[question.image]

    def _resized(self, question: Question) -> Sides:
        width, height = self._size(question)
        processor = self._processor.image_processor
        height, width = smart_resize(
            height, width, processor.patch_size * processor.merge_size,
            processor.size["shortest_edge"], processor.size["longest_edge"],
        )  # fmt: skip
        return width, height
