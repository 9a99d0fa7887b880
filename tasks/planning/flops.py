"""Floating-point operations of the matrix products of a step: 2 for each multiplication and addition.

A forward pass costs 2 a weight and token, and 4 a pair of tokens that attend, unit of width and layer (scores, then the
weighted sum; counted for the whole rectangle, as kernels with a mask compute it). The gradient of what comes in costs
the same again, that of the weights too where they learn, and attention twice its forward. Norms, rotations and
activation functions are left out: about 1%. Checked against torch.utils.flop_counter in tests/test_plan.py.
"""

from dataclasses import dataclass

from tasks.planning.shapes import Picture, Shapes


@dataclass(frozen=True)
class Pass:
    """Which passes go over a row: forward, once more to recompute (checkpointed activations), and backward."""

    forwards: int = 1
    backward: bool = False

    def linear(self, frozen: int, trained: int) -> int:
        """Operations a token of weights."""
        return 2 * (self.forwards + self.backward) * (frozen + trained) + 2 * self.backward * trained

    @property
    def attention(self) -> int:
        """Operations a pair of tokens and unit of width."""
        return 4 * (self.forwards + 2 * self.backward)


FORWARD = Pass()


def row(
    shapes: Shapes, prompt: int, completion: int, num: int, passes: Pass = FORWARD, logits: int | None = None
) -> int:
    """A prompt and `num` completions that share it, in one packed row (tasks.models.prefix): the last token of a
    completion is not read. `logits`: positions with the vocabulary's product; None: the completions' tokens.
    """
    read = max(completion - 1, 0)
    tokens = prompt + num * read
    language, head = shapes.linear["language"], shapes.linear["head"]
    pairs = prompt * prompt + num * read * (prompt + read)
    return (
        tokens * passes.linear(language.frozen, language.trained)
        + (num * completion if logits is None else logits) * passes.linear(head.frozen, head.trained)
        + pairs * passes.attention * shapes.heads * shapes.layers
    )


def decoding(shapes: Shapes, prompt: int, completion: int, num: int) -> int:
    """`num` completions written token by token after a prompt that has been read."""
    read = max(completion - 1, 0)
    language, head = shapes.linear["language"], shapes.linear["head"]
    pairs = num * (read * prompt + read * (read + 1) // 2)
    linear = num * read * FORWARD.linear(language.frozen, language.trained)
    return linear + num * completion * 2 * head.all + 4 * pairs * shapes.heads * shapes.layers


def tower(shapes: Shapes, picture: Picture, passes: Pass = FORWARD) -> int:
    """One picture's features. A frozen tower has no backward pass."""
    on_patches, on_tokens = shapes.linear["tower"], shapes.linear["merger"]
    if not (on_patches.trained or on_tokens.trained):
        passes = FORWARD
    full, rest = shapes.tower_full_layers, shapes.tower_layers - shapes.tower_full_layers
    pairs = picture.patches * (full * picture.patches + rest * picture.window)
    return (
        picture.patches * passes.linear(on_patches.frozen, on_patches.trained)
        + picture.merged * passes.linear(on_tokens.frozen, on_tokens.trained)
        + pairs * passes.attention * shapes.tower_hidden
    )
