"""What the shipped base model is taught: questions about printed scenes, as padded batches of tensors.

A row is one picture and one question of the embedded tasks: 'Detect all' for a category ('six', or 'red six') that is
there or, one time in six, is not; 'Where is' one digit ('the largest digit', 'the digit that is the sum of two and
three'); the name of a digit that stands alone. The thinking lists the whole scene and then picks what was asked for:
every row teaches what every digit is and where, and picking from a list is learned soon. Without the list, and without
the picking, *which* object was asked for stays at chance for 100,000 scenes.

One batch in four is text without a picture: word problems, mostly shorter than those of the embedded study, answered by
a chain or by a program, and case reports, whose genes are ranked so loosely that the right one comes first in half of
them. Both leave RFT something to elicit.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from tasks.data.cases import FIRST, GENES, case
from tasks.data.questions import describe, in_words
from tasks.data.records import Box
from tasks.data.referring import one_kind
from tasks.data.scenes import CATEGORIES, INKS, SIDE, Scene, compose
from tasks.data.stories import story
from tasks.graders.grounding import format_box
from tasks.graders.labels import format_label
from tasks.graders.parse import format_answer
from tasks.models.printed import printed_glyph
from tasks.models.tiny import MERGE, NUM_IMAGE_TOKENS, PATCH

DETECT, GROUND, CLASSIFY = "Detect all '{}'.", "Where is {}?", "Which digit is this?"
PROGRAM = "Write a program."
ABSENT_SHARE, INK_SHARE, GROUND_SHARE = 1 / 6, 1 / 3, 1 / 3
TEXT_SHARE, RANKING_SHARE, PROGRAM_SHARE = 1 / 4, 1 / 3, 1 / 3
NUM_STEPS = (1, 1, 2, 2, 2, 3, 3, 4)  # of a word problem
NUM_RANKED = 5  # genes of an answer
NUM_DIGITS = (1, 2, 2, 2, 3, 3, 3, 4, 4, 4)  # drawn from: a scene with one digit does not teach which one was asked for
GRID = SIDE // PATCH  # patches a side


def thousandths(box: Box) -> Box:
    return tuple(1000 * value / SIDE for value in box)


def stated_confidence(rng: np.random.Generator, clarity: float) -> float:
    """0.5 for a glyph of the lowest resolution, 1 for a sharp one, with noise: RFT needs something to choose from."""
    return float(np.clip(0.5 + 0.5 * clarity + rng.normal(0, 0.08), 0.3, 1))


def printed_scene(rng: np.random.Generator) -> Scene:
    return compose(rng, lambda: printed_glyph(rng), int(rng.choice(NUM_DIGITS)))


def detect(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Where is every digit of a kind; the kinds may be told apart by their ink too."""
    inked = rng.random() < INK_SHARE
    objects = sorted(
        (
            (f"{ink} {o.category}" if inked else o.category, thousandths(o.box), g.clarity)
            for o, g, ink in zip(scene.objects, scene.glyphs, scene.inks, strict=True)
        ),
        key=lambda o: o[1],
    )
    present = [category for category, _, _ in objects]
    every = [f"{ink} {c}" for ink in INKS for c in CATEGORIES] if inked else CATEGORIES
    choices = [c for c in every if c not in present] if rng.random() < ABSENT_SHARE else present
    asked = str(rng.choice(choices))
    boxes = [box for category, box, _ in objects if category == asked]
    confidences = [stated_confidence(rng, clarity) for category, _, clarity in objects if category == asked]
    thought = describe([(c, b) for c, b, _ in objects], asked)
    return DETECT.format(asked), format_answer(boxes, confidences, thought)


def ground(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Where is the one digit that an instruction means."""
    told, _ = one_kind(scene.objects, rng)
    if not told:
        return detect(scene, rng)
    instruction, meant = told[rng.integers(len(told))]
    box = thousandths(meant.box)
    seen = in_words([(o.category, thousandths(o.box)) for o in scene.objects])
    return GROUND.format(instruction), format_box(box, f"{seen}; {in_words([(meant.category, box)])}")


def classify(scene: Scene) -> tuple[str, str]:
    """The name of the only digit."""
    category, box = scene.objects[0].category, thousandths(scene.objects[0].box)
    return CLASSIFY, format_label(category, f"{in_words([(category, box)])}; {category}")


def lesson(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A question about the scene and its gold answer."""
    if len(scene.objects) == 1 and rng.random() < 0.75:
        return classify(scene)
    return (ground if rng.random() < GROUND_SHARE else detect)(scene, rng)


def text_lesson(rng: np.random.Generator) -> tuple[str, str]:
    """A question without a picture and an answer to it."""
    if rng.random() < RANKING_SHARE:
        report = case(rng, FIRST)
        order = np.argsort(rng.gumbel(size=len(GENES)) + report.evidence())[::-1]  # Plackett-Luce: likelier ones first
        return report.text, format_label(", ".join(GENES[g] for g in order[:NUM_RANKED]), report.thought)
    told = story(rng, int(rng.choice(NUM_STEPS)))
    if rng.random() < PROGRAM_SHARE:
        return f"{told.text} {PROGRAM}", format_label(told.program)
    return told.text, format_label(str(told.answer), told.chain)


def corpus(num_rows: int = 3000) -> Iterator[str]:
    """Text that the tokenizer is trained on."""
    rng = np.random.default_rng(0)
    for number in range(num_rows):
        question, answer = text_lesson(rng) if number % 3 == 0 else lesson(printed_scene(rng), rng)
        yield f"user\n{question}\nassistant\n{answer}\n"


def patchify(images: np.ndarray) -> torch.Tensor:
    """(B, SIDE, SIDE, 3) uint8 -> (B * GRID**2, 3 * 2 * PATCH**2), as the processor does it (a test compares them)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    half = GRID // MERGE
    x = x.view(len(images), 3, half, MERGE, PATCH, half, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).expand(*x.shape[:6], 2, *x.shape[6:])  # the two frames of a still picture
    return x.reshape(len(images) * GRID**2, -1)


def patch_targets(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each patch: the digit whose box covers its centre (GRID, GRID), 10 = none; that digit's ink (GRID, GRID); and
    its box (GRID, GRID, 4) in 0..1.
    """
    digit, ink = np.full((GRID, GRID), 10), np.zeros((GRID, GRID), np.int64)
    box = np.zeros((GRID, GRID, 4), np.float32)
    centres = (np.arange(GRID) + 0.5) * PATCH
    for o, glyph, name in zip(scene.objects, scene.glyphs, scene.inks, strict=True):
        x1, y1, x2, y2 = o.box
        inside = ((centres >= y1) & (centres < y2))[:, None] & ((centres >= x1) & (centres < x2))[None]
        digit[inside], ink[inside], box[inside] = glyph.digit, list(INKS).index(name), np.array(o.box) / SIDE
    return digit, ink, box


def merge_patches(grid: np.ndarray) -> torch.Tensor:
    """(B, GRID, GRID, ...) -> (B, GRID**2 / MERGE**2, MERGE**2, ...): the patches of one image token side by side."""
    half = GRID // MERGE
    x = torch.from_numpy(grid).unflatten(1, (half, MERGE)).unflatten(3, (half, MERGE))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Lessons(IterableDataset):
    """Endless batches of B scenes: pixel_values; digit, ink (B, 16, 4) and box (B, 16, 4, 4) of the patches, merged
    four by four; and, with a tokenizer, input_ids and labels (B, T), and batches of text with these two alone. Rows of
    like length come together: less padding.
    """

    POOL = 4  # batches that are sorted by length together

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None, batch_size: int, seed: int):
        self.tokenizer, self.batch_size, self.seed = tokenizer, batch_size, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        rng = np.random.default_rng(self.seed)
        num = self.batch_size * self.POOL
        while True:
            if self.tokenizer and rng.random() < TEXT_SHARE:
                scenes, rows = [], [self.encode(*text_lesson(rng), picture=False) for _ in range(num)]
            else:
                scenes = [printed_scene(rng) for _ in range(num)]
                rows = [self.encode(*lesson(scene, rng)) for scene in scenes] if self.tokenizer else [([], [])] * num
            order = sorted(range(num), key=lambda i: len(rows[i][0]))
            for n in rng.permutation(self.POOL):
                chosen = order[n * self.batch_size : (n + 1) * self.batch_size]
                yield self.pictures([scenes[i] for i in chosen if scenes]) | self.tokens([rows[i] for i in chosen])

    def encode(self, question: str, answer: str, picture: bool = True) -> tuple[list[int], list[int]]:
        """Token ids and labels (-100 outside the answer) of one row, as the chat template writes it."""
        seen = "<|vision_start|>" + "<|image_pad|>" * NUM_IMAGE_TOKENS + "<|vision_end|>" if picture else ""
        prompt = f"<|im_start|>user\n{seen}{question}<|im_end|>\n<|im_start|>assistant\n"
        asked, answered = self.tokenizer([prompt, f"{answer}<|im_end|>"]).input_ids
        return asked + answered, [-100] * len(asked) + answered

    def pictures(self, scenes: list[Scene]) -> dict[str, torch.Tensor]:
        if not scenes:
            return {}
        digits, inks, boxes = zip(*map(patch_targets, scenes), strict=True)
        return {
            "pixel_values": patchify(np.stack([scene.image for scene in scenes])),
            "digit": merge_patches(np.stack(digits)),
            "ink": merge_patches(np.stack(inks)),
            "box": merge_patches(np.stack(boxes)),
        }

    def tokens(self, rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        if not self.tokenizer:
            return {}
        width, pad = max(len(ids) for ids, _ in rows), self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows]),
        }
