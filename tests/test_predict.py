"""`python -m tasks.predict`: the gold answer, the empty one and the hacked one; units; what it refuses."""

import json
import subprocess
import sys
from io import BytesIO

import pytest
from PIL import Image

from tasks import predict as command
from tasks.graders.grounding import format_box
from tasks.graders.labels import format_label
from tasks.graders.parse import format_answer
from tasks.params import load_params
from tasks.predict import PredictError, Predictor, in_pixels, main, read

GOLD = format_answer([(100, 200, 500, 600)], [0.9])
HACKED = {
    "detection": GOLD + GOLD,  # two answers, of which a lenient reader would take the better
    "grounding": "<think></think><answer>(1,1),(9,9) (2,2),(8,8)</answer>",
    "classification": "six",
}
EMPTY = {"detection": "no_answer", "grounding": "no_answer", "classification": "no_answer"}


@pytest.fixture
def picture(tmp_path):
    """200 x 100 pixels, white."""
    Image.new("RGB", (200, 100), "white").save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.fixture
def says(monkeypatch):
    """Let the shipped model say a text; the rest is real."""

    def say(text: str) -> None:
        monkeypatch.setattr(command, "answer", lambda *_: [text])

    return say


def params_with(section: str, **values):
    params = load_params()
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def test_the_gold_answers_are_read():
    found = read(GOLD, "detection")
    assert (found.boxes, found.confidences, found.failure) == (((100, 200, 500, 600),), (0.9,), None)
    assert read(format_answer([], []), "detection").failure is None
    assert read(format_box((1, 2, 30, 40)), "grounding").boxes == ((1, 2, 30, 40),)
    assert read(format_label("a cat"), "classification").label == "a cat"


@pytest.mark.parametrize("task", HACKED)
def test_empty_and_hacked_answers_state_nothing(task):
    for text in ("", HACKED[task]):
        found = read(text, task)
        assert (found.boxes, found.confidences, found.label) == ((), (), None) and found.failure
    assert read("", task).failure == EMPTY[task]


def test_an_answer_without_its_frame_is_read_and_told_of():
    found = read("<answer>a cat</answer>", "classification")
    assert (found.label, found.failure) == ("a cat", "bad_format")


def test_boxes_come_in_pixels_and_are_drawn(picture, says):
    says(GOLD)
    found = Predictor(load_params(), None).predict(picture, "detection", "six")
    assert found.boxes == ((20.0, 20.0, 100.0, 60.0),)  # of 200 x 100
    drawn = Image.open(BytesIO(found.annotated))
    assert len({drawn.getpixel((x, y))[:3] for x in range(drawn.width) for y in range(drawn.height)}) > 3


def test_a_family_that_writes_pixels_is_read_in_pixels(picture, says):
    says("<think></think><answer>(20,20),(100,60)</answer>")
    found = Predictor(params_with("model", coordinates="absolute"), None).predict(picture, "grounding", "the cup")
    assert found.boxes == ((20.0, 20.0, 100.0, 60.0),)


def test_a_photograph_that_lies_on_its_side_is_set_upright(tmp_path, says):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees
    Image.new("RGB", (200, 100), "white").save(tmp_path / "p.jpg", exif=exif)
    says(GOLD)
    found = Predictor(load_params(), None).predict(tmp_path / "p.jpg", "detection", "six")
    assert found.boxes == (in_pixels((100, 200, 500, 600), (100, 200)),)


@pytest.mark.slow
def test_the_command_answers_with_the_shipped_model(data, tmp_path):
    """On a val picture of the embedded set; the line is JSON, and the picture is there."""
    row = json.loads((data / "pool" / "val.jsonl").read_text().splitlines()[0])
    asked, out = row["objects"][0]["category"], tmp_path / "out.png"
    words = ["--image", str(data / "pool" / row["image"]), "--ask", asked, "--out", str(out)]
    done = subprocess.run([sys.executable, "-m", "tasks.predict", *words], capture_output=True, text=True, check=True)
    line = json.loads(done.stdout)
    assert set(line) == {"completion", "boxes", "confidences", "label", "failure", "picture"}
    assert line["picture"] == str(out) and Image.open(out).format == "PNG"
    assert "<answer>" in line["completion"] and len(line["boxes"]) == len(line["confidences"])
    assert all(0 <= x1 < x2 <= row["width"] for x1, _, x2, _ in line["boxes"])


def test_what_cannot_be_asked_is_named(picture, tmp_path, capsys):
    (tmp_path / "words.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    for words, told in (
        (["--image", str(tmp_path / "none.png"), "--ask", "six"], "none.png: no such picture"),
        (["--image", str(tmp_path / "words.png"), "--ask", "six"], "not a JPEG, PNG or WebP picture"),
        (["--image", str(picture), "--ask", "six", "--model", str(tmp_path / "empty")], "empty: no config.json"),
        (["--image", str(picture), "--ask", " "], "nothing asked: detection needs a category"),
        (["--image", str(picture), "--ask", "six", "--out", str(picture)], "would overwrite the picture"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert told in error and "Traceback" not in error
    assert Image.open(picture).size == (200, 100)


def test_a_task_without_a_prompt_is_refused(picture):
    with pytest.raises(PredictError, match=r"no prompt for grounding; give prompt\.grounding"):
        Predictor(params_with("prompt", grounding=None), None).predict(picture, "grounding", "the cup")
