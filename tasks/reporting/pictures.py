"""A test picture, upscaled, with the true boxes and those of two policies, told apart by colour, line style and tag."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tasks.data.records import Box
from tasks.reporting.theme import LIGHT

LONG_SIDE = 480  # pixels of the drawn picture: a smaller one grows by a whole factor, a larger one shrinks
MARGIN = 28  # transparent frame that takes the tags of boxes at the picture's edge
STROKE = 3
FONT = ImageFont.load_default(size=19)


@dataclass(frozen=True)
class Layer:
    """Boxes (thousandths) of one source. `dash` is (on, off) in pixels, None for a solid line.

    Equal boxes of several layers stay visible side by side: `shift` moves a line outwards (pixels, negative: inwards).
    `side` is where the tag goes: 'above', 'right', 'below'.
    """

    tags: tuple[str, ...]
    boxes: tuple[Box, ...]
    colour: str
    dash: tuple[int, int] | None
    shift: int
    side: str


def gold_layer(boxes: tuple[Box, ...]) -> Layer:
    return Layer(("truth",) * len(boxes), boxes, LIGHT.gold, None, STROKE + 1, "above")


def sft_layer(boxes: tuple[Box, ...], confidences: Sequence[float]) -> Layer:
    return Layer(_tags("SFT", boxes, confidences), boxes, LIGHT.sft, (13, 6), 0, "right")


def rft_layer(name: str, boxes: tuple[Box, ...], confidences: Sequence[float]) -> Layer:
    return Layer(_tags(name, boxes, confidences), boxes, LIGHT.rft[0], (4, 4), -(STROKE + 1), "below")


def draw(path: Path, layers: Sequence[Layer]) -> bytes:
    """PNG of the picture at `path` with all layers, tags on top."""
    picture = _scaled(path)
    canvas = Image.new("RGBA", (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN), (0, 0, 0, 0))
    canvas.paste(picture, (MARGIN, MARGIN))
    pen = ImageDraw.Draw(canvas)
    placed = [(layer, tag, _place(box, layer.shift, picture)) for layer in layers for tag, box in _tagged(layer)]
    for layer, _, corners in placed:
        _rectangle(pen, corners, layer)
    for layer, tag, corners in placed:
        _tag(pen, tag, corners, layer, canvas.size)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _tags(name: str, boxes: tuple[Box, ...], confidences: Sequence[float]) -> tuple[str, ...]:
    """With the confidence, where there is one: a grounding answer has none."""
    return tuple(f"{name} {confidence:.2f}" for confidence in confidences) or (name,) * len(boxes)


def _tagged(layer: Layer):
    return zip(layer.tags, layer.boxes, strict=True)


def _scaled(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    longest = max(picture.size)
    if longest > LONG_SIDE:
        picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        return picture
    factor = LONG_SIDE // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _place(box: Box, shift: int, picture: Image.Image) -> tuple[int, int, int, int]:
    """Pixels of the canvas; `shift` outwards, but never turned inside out."""
    x1, y1, x2, y2 = (round(MARGIN + v * side / 1000) for v, side in zip(box, picture.size * 2, strict=True))
    shift = max(shift, -((min(x2 - x1, y2 - y1) - 1) // 2))
    return x1 - shift, y1 - shift, x2 + shift, y2 + shift


def _rectangle(pen: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], layer: Layer) -> None:
    """A coloured line on a white one, so that it stands out on any picture."""
    x1, y1, x2, y2 = corners
    half = STROKE // 2
    pen.rectangle((x1 - half - 1, y1 - half - 1, x2 + half + 1, y2 + half + 1), outline="white", width=STROKE + 2)
    if layer.dash is None:
        pen.rectangle((x1 - half, y1 - half, x2 + half, y2 + half), outline=layer.colour, width=STROKE)
        return
    on, off = layer.dash
    for start in range(x1 - half, x2 + half + 1, on + off):
        end = min(start + on - 1, x2 + half)
        for y in (y1, y2):
            pen.rectangle((start, y - half, end, y + half), fill=layer.colour)
    for start in range(y1 - half, y2 + half + 1, on + off):
        end = min(start + on - 1, y2 + half)
        for x in (x1, x2):
            pen.rectangle((x - half, start, x + half, end), fill=layer.colour)


def _tag(pen: ImageDraw.ImageDraw, text: str, corners: tuple, layer: Layer, size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = corners
    width, height = round(pen.textlength(text, font=FONT)) + 8, 24
    x, y = {"above": (x1, y1 - height - 3), "right": (x2 + 4, y1), "below": (x1, y2 + 4)}[layer.side]
    x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=layer.colour)
    pen.text((x + 4, y + height / 2), text, font=FONT, fill="white", anchor="lm")
