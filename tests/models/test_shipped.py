"""The shipped base model: a stock checkpoint that loads like any other and answers in the documented format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedModel

from tasks.data.questions import ask
from tasks.data.records import Record
from tasks.data.scenes import compose
from tasks.graders.parse import parse_detection
from tasks.models.generate import answer, control_tokens, encode
from tasks.models.lessons import patchify
from tasks.models.loading import load_model, load_processor
from tasks.models.printed import printed_glyph
from tasks.params import load_params

TINY = Path("models/tiny")
MODEL, PROMPT = load_params().model, load_params().prompt


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL, TINY)


@pytest.fixture(scope="module")
def processor():
    return load_processor(MODEL, TINY)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about eight printed scenes, and the folder of their pictures."""
    folder, rng, records = tmp_path_factory.mktemp("print"), np.random.default_rng(5), []
    for n in range(8):
        scene = compose(rng, lambda: printed_glyph(rng), 1 + n % 4)
        Image.fromarray(scene.image).save(folder / f"{n}.png")
        records.append(Record(str(n), f"{n}.png", 112, 112, str(n), scene.objects))
    return folder, ask(records, ["one", "two"], 1)


def test_it_is_at_most_5_mb_of_safetensors_and_no_code():
    assert (TINY / "model.safetensors").stat().st_size <= 5_000_000
    assert not list(TINY.glob("*.py")) + list(TINY.glob("*.bin"))


def test_it_loads_as_a_stock_model():
    model = AutoModelForImageTextToText.from_pretrained(TINY)
    assert type(model).__module__ == "transformers.models.qwen3_vl.modeling_qwen3_vl"


def test_every_digit_is_a_token_and_any_text_survives(processor):
    tokenizer = processor.tokenizer
    assert len(tokenizer.tokenize("1000")) == 4
    for text in (
        "<think>a, b</think><answer>[{'Position': [1, 22, 333, 1000], 'Confidence': 0.93}]</answer>",
        "Ünï 🙂\n",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_pretraining_patches_are_the_processors(processor):
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    ours = patchify(image[None])
    theirs = processor.image_processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_image_tokens_equal_the_grid_and_padding_is_on_the_left(processor, questions):
    folder, asked = questions
    batch = encode(processor, PROMPT, asked, folder)
    image_tokens = (batch["input_ids"] == processor.image_token_id).sum(1)
    assert image_tokens.tolist() == (batch["image_grid_thw"].prod(1) // 4).tolist()
    assert batch["attention_mask"][:, -1].all()


@pytest.mark.slow
def test_answers_are_well_formed_and_the_same_in_a_batch_as_alone(model, processor, questions):
    folder, asked = questions
    together = answer(model, processor, PROMPT, asked, folder, len(asked), 96)
    alone = answer(model, processor, PROMPT, asked, folder, 1, 96)
    assert together == alone
    assert np.mean([parse_detection(text).well_formed for text in together]) > 0.95


def test_answers_hang_on_the_picture(model, processor, questions):
    folder, asked = questions
    seen = answer(model, processor, PROMPT, asked, folder, 32, 96)
    blank = folder / "blank"
    blank.mkdir()
    for picture in folder.glob("*.png"):
        Image.new("RGB", (112, 112), "white").save(blank / picture.name)
    assert seen != answer(model, processor, PROMPT, asked, blank, 32, 96)


def test_a_models_own_penalties_and_cuts_change_no_answer(model, processor, questions, monkeypatch):
    """Qwen2.5-VL ships repetition_penalty 1.05, which RFT's rollouts do not have: digits of boxes repeat."""
    folder, asked = questions
    plain = answer(model, processor, PROMPT, asked[:4], folder, 4, 48)
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    assert answer(model, processor, PROMPT, asked[:4], folder, 4, 48) == plain
    monkeypatch.setattr(model.generation_config, "top_p", 1e-6)
    sampled = answer(model, processor, PROMPT, asked[:1] * 4, folder, 4, 24, temperature=9.0)
    assert len(set(sampled)) > 1


def test_weights_are_loaded_onto_the_gpu_where_there_is_one(monkeypatch):
    """A grade is nothing but this and `answer`, which follows the model's device."""
    placed = []
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, device: placed.append(device) or self)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        load_model(MODEL, TINY)
    assert placed == ["cuda", "cpu"]


def test_no_control_token_can_be_sampled(processor):
    names = processor.tokenizer.convert_ids_to_tokens(control_tokens(processor))
    assert {"<|image_pad|>", "<|im_start|>", "<|vision_start|>"} <= set(names)
    assert "<|im_end|>" not in names
