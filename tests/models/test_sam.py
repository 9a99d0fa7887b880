"""Boxes of grounding answers as masks, by a SamModel of random weights, through the stage `grade`."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import (
    SamConfig,
    SamImageProcessorPil,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from tasks import grade as stage
from tasks.data.records import Record, Referring, Shape, write_jsonl
from tasks.graders.grounding import format_box
from tasks.models.sam import Segmenter
from tasks.params import load_params
from tasks.scoring.masks import gold_mask, overlap

WIDTH, HEIGHT = 60, 40
OUTLINE = (Shape(((10, 10), (30, 10), (30, 30), (10, 30))), Shape(((30, 10), (40, 10), (40, 30)), ignore=True))
BOX = (10.0, 10.0, 30.0, 30.0)


@pytest.fixture(scope="module")
def sam(tmp_path_factory) -> str:
    """A folder with a SAM of a few thousand weights for pictures of 64 x 64."""
    folder = tmp_path_factory.mktemp("sam")
    vision = SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8,
        window_size=4, global_attn_indexes=[0], num_pos_feats=8, mlp_dim=16,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_dim=16, iou_head_hidden_dim=16
    )
    SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    ).save_pretrained(folder)
    sizes = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    SamProcessor(SamImageProcessorPil(**sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pool(tmp_path):
    """One picture with two instructions, of which only the first has a mask."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "p.png")
    referring = (Referring("the square", BOX, mask=OUTLINE), Referring("the box", BOX))
    write_jsonl(tmp_path / "test.jsonl", [Record("p", "p.png", WIDTH, HEIGHT, "h", referring=referring)])
    (tmp_path / "categories.json").write_text("[]")
    (tmp_path / "pool.json").write_text(json.dumps({"frequency": {}}))
    return tmp_path


def test_a_box_becomes_a_mask_of_the_size_of_the_picture(sam, pool):
    segmenter = Segmenter(sam)
    mask = segmenter.mask(pool / "p.png", (100, 100, 500, 700))
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
    assert (segmenter.mask(pool / "p.png", (100, 100, 500, 700)) == mask).all()


def graded(pool, sam, monkeypatch, *completions):
    """Metrics and rows of a policy that gives these answers."""
    monkeypatch.setattr(stage, "load_model", lambda *_: None)
    monkeypatch.setattr(stage, "load_processor", lambda *_: type("Processor", (), {"image_processor": None}))
    monkeypatch.setattr(stage, "answer", lambda *_, **__: list(completions))
    params = load_params()
    params = params.model_copy(update={"grade": params.grade.model_copy(update={"sam": sam})})
    metrics = stage.grade(params, pool, None, pool / "out", None)
    return metrics, [json.loads(line) for line in (pool / "out" / "predictions.jsonl").read_text().splitlines()]


def test_the_stage_compares_masks_where_there_are_gold_ones(sam, pool, monkeypatch):
    stated = (200.0, 200.0, 600.0, 800.0)
    metrics, rows = graded(pool, sam, monkeypatch, format_box(stated), "nothing")
    (question, _) = stage.test_questions(pool, "ground_truth")
    gold = gold_mask(question.mask, WIDTH, HEIGHT)
    assert gold[0].sum() == 400
    shared, united = overlap(Segmenter(sam).mask(pool / "p.png", stated), *gold)
    assert [row["mask_overlap"] for row in rows] == [[shared, united], None]
    assert metrics["mask_giou"] == metrics["mask_ciou"] == pytest.approx(shared / united)
    metrics, rows = graded(pool, sam, monkeypatch, "nothing", "nothing")
    assert (rows[0]["mask_overlap"], metrics["mask_miou"]) == ([0, 400], 0)  # unreadable: an empty mask


def test_without_sam_there_are_no_masks_and_without_masks_no_sam(sam, pool, monkeypatch):
    metrics, rows = graded(pool, None, monkeypatch, "", "")
    assert "mask_giou" not in metrics and "mask_overlap" not in rows[0]
    bare = Record("p", "p.png", WIDTH, HEIGHT, "h", referring=(Referring("the square", BOX),))
    write_jsonl(pool / "test.jsonl", [bare])
    with pytest.raises(ValueError, match=r"grade\.sam: no question of .*test\.jsonl has a mask"):
        graded(pool, sam, monkeypatch, "")
