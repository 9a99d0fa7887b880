"""Coordinate conventions: gold to target and back, exactly, at the sizes that the processors really use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.frame import MAX_CHARACTERS
from tasks.graders.grounding import parse_grounding
from tasks.graders.parse import parse_detection
from tasks.graders.target import targets
from tasks.graders.units import to_thousandths
from tasks.models.coordinates import Coordinates
from tasks.params import load_params

SIZES = [(640, 427), (97, 311), (2000, 1500), (112, 112), (30, 30)]
BOX = (100.0, 250.0, 300.0, 750.0)
grade = make_grader(load_params().reward)


class Processor:
    image_processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=401408)


@pytest.fixture
def pool(tmp_path):
    for width, height in SIZES:
        Image.new("RGB", (width, height)).save(tmp_path / f"{width}.png")
    return tmp_path


def questions(width):
    image = f"{width}.png"
    return [
        Question("r", image, "detection", "six", (BOX, (0.0, 0.0, 1000.0, 1000.0)), thoughts=("six [100, 250]; six",)),
        Question("r", image, "detection", "six", thoughts=("No six",)),
        Question("r", image, "grounding", "the largest", (BOX,), thoughts=("the largest is six [100, 250]",)),
        Question("r", image, "classification", "", label="red seven", thoughts=("seven [100, 250]",)),
    ]


@pytest.mark.parametrize("convention", ["relative_1000", "absolute_resized", "absolute"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_target_read_back_is_gold(pool, convention, size):
    """Up to half a pixel of rounding; and exactly, once the boxes are whole pixels."""
    coordinates = Coordinates(convention, Processor, pool)
    for question in questions(size[0]):
        (text,) = coordinates.write(question)
        read = coordinates.read(text, question)
        got = grade(read, question)
        assert got.failure is None
        for stated, gold in zip(got.boxes, question.boxes, strict=True):
            half = [500 / side for side in coordinates.sides(question)] * 2
            assert all(abs(a - b) <= h + 1e-6 for a, b, h in zip(stated, gold, half, strict=True))
        if got.boxes:
            again = Question("r", question.image, question.task, question.asked, got.boxes, thoughts=question.thoughts)
            assert coordinates.write(again) == [text]


def test_units_literally(pool):
    question = questions(640)[2]
    written = [
        Coordinates(c, Processor, pool).write(question)[0] for c in ("relative_1000", "absolute_resized", "absolute")
    ]
    think = "<think>the largest is six [{}]</think><answer>({}),({})</answer>"
    assert written == [
        think.format("100, 250", "100,250", "300,750"),
        think.format("64, 105", "64,105", "193,315"),  # the processor makes it 644 x 420
        think.format("64, 107", "64,107", "192,320"),
    ]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_resized_picture_is_what_the_processor_makes(pool, size):
    processor = Processor.image_processor
    grid = processor(Image.new("RGB", size), return_tensors="np")["image_grid_thw"][0]
    width, height = Coordinates("absolute_resized", Processor, pool).sides(
        Question("", f"{size[0]}.png", "grounding", "")
    )
    assert (height, width) == (grid[1] * processor.patch_size, grid[2] * processor.patch_size)


def test_one_reader_for_every_grader(pool):
    coordinates, question = Coordinates("absolute", Processor, pool), questions(640)[2]
    (text,) = coordinates.write(question)
    assert coordinates.reading(grade)(text, question).reward > 0.98
    assert grade(text, question).sub_rewards["iou"] < 0.3  # the wrong convention: Visual-RFT's issue 119


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("[50, 50, 100, 100]", "[100.000000, 250.000000, 200.000000, 500.000000]"),
        ("(50,50),(100,100)", "(100.000000,250.000000),(200.000000,500.000000)"),
        ("[5e1, 50.0, +100, 100]", "[100.000000, 250.000000, 200.000000, 500.000000]"),
        ("[-50, 50, 1000, 100]", "[-100.000000, 250.000000, 2000.000000, 500.000000]"),
        ("[50, 50, 100]", "[50, 50, 100]"),
        ("[NaN, 50, 100, 100]", "[NaN, 50, 100, 100]"),
        ("[1e999, 50, 100, 100]", "[1e999, 50, 100, 100]"),
        ("[" * 20_000, "[" * 20_000),
        ("No Objects", "No Objects"),
    ],
)
def test_what_is_rewritten(content, read):
    assert to_thousandths(content, (500, 200)) == read


sides = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(sides, st.data())
@settings(max_examples=300, deadline=None)
def test_whole_pixels_come_back_exactly(sides, data):
    """Pixels -> thousandths -> target -> thousandths -> pixels."""
    (x1, x2), (y1, y2) = (
        sorted(data.draw(st.lists(st.integers(0, s), min_size=2, max_size=2, unique=True))) for s in sides
    )
    box = tuple(1000 * v / s for v, s in zip((x1, y1, x2, y2), sides * 2, strict=True))
    for task, parse in (("detection", parse_detection), ("grounding", parse_grounding)):
        (text,) = targets(Question("r", "", task, "six", (box,)), sides)
        assert all(str(v) in text for v in (x1, y1, x2, y2))
        parsed = parse(to_thousandths(text, sides))
        stated = parsed.boxes[0].box if task == "detection" else parsed.box
        assert np.allclose(stated, box, atol=1e-6, rtol=0)


@pytest.mark.parametrize("unit", ["[", "(1", "[1,", "1", " ", "(1,1)", "[1,1,1,1]", "9.", "1e", "-"])
def test_hostile_text_is_rewritten_in_linear_time(unit):
    text = (unit * MAX_CHARACTERS)[:MAX_CHARACTERS]
    assert len(to_thousandths(text, (500, 200))) >= len(text) / 2
