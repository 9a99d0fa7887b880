"""Random weights of published shapes: they load as a model of the hub would, without a download."""

import json

import pytest
from transformers import AutoConfig

from tasks.models import geometry, loading
from tasks.models.generate import control_tokens
from tasks.models.loading import load_model, load_processor
from tasks.params import Model
from tests.models.twins import TEXT, VISION


def named(path: str) -> Model:
    keys = {"revision": None, "dtype": "bfloat16", "min_pixels": None, "max_pixels": None, "lora": None}
    return Model(path=path, coordinates="relative_1000", geometry=True, **keys)


@pytest.mark.parametrize("path", ["Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen3-0.6B", "x/SmolVLM2-256M-Video-Instruct"])
def test_a_geometry_answers_in_its_dtype_and_the_same_every_time(path, monkeypatch):
    """Made small here, since the whole takes gigabytes."""
    whole = json.loads((geometry.FOLDER / f"{path.split('/')[1]}.json").read_text())
    text = whole.get("text_config", whole)
    text.update(TEXT)
    if "mrope_section" in text["rope_parameters"]:
        text["rope_parameters"]["mrope_section"] = [2, 1, 1]
    if "vision_config" in whole:
        whole["vision_config"].update(VISION[whole["model_type"]])
    monkeypatch.setattr(loading, "read_config", lambda _: AutoConfig.for_model(**whole))
    model, again, processor = load_model(named(path)), load_model(named(path)), load_processor(named(path))
    assert str(model.dtype) == "torch.bfloat16"
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))
    tokenizer = loading.tokenizer_of(processor)
    assert model.config.get_text_config().eos_token_id == tokenizer.eos_token_id
    if "vision_config" in whole:
        assert model.config.image_token_id in control_tokens(processor)


def test_shapes_that_are_not_shipped_are_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"no models/geometry/Qwen9\.json; there are .*Qwen3-0\.6B.*SmolVLM2"):
        load_model(named("Qwen/Qwen9"))
