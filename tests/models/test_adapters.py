"""What learns: parts of a model, adapters in them, what a trained folder holds of them, and what is refused."""

import importlib.util

import pytest
import torch

from tasks.models.adapters import learning, save_weights, vision_parts
from tasks.models.loading import load_model, load_processor
from tasks.params import Model, load_params, validate
from tasks.rl.policy import Reference
from tests.models.twins import write_twin

LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> dict[str, Model]:
    return {family: write_twin(family, tmp_path_factory.mktemp(family)) for family in ("qwen3_vl", "smolvlm", "qwen3")}


def changed(model: Model, **keys) -> Model:
    return Model.model_validate({**model.model_dump(), **keys})


def learned(model: Model) -> tuple[list[str], list[str]]:
    """Names of what learns inside the vision parts, and outside."""
    learner = learning(load_model(model), model)
    names = [name for name, p in learner.named_parameters() if p.requires_grad]
    inside = [
        name for name in names if any(f".{part}." in f".{name}" for part in ("visual", "vision_model", "connector"))
    ]
    return inside, [name for name in names if name not in inside]


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole weights", "adapter"])
@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_the_part_that_is_named_learns_and_no_other(twins, family, lora):
    for trained, vision, language in (("all", True, True), ("language", False, True), ("vision", True, False)):
        inside, outside = learned(changed(twins[family], trained=trained, lora=lora))
        assert (bool(inside), bool(outside)) == (vision, language), trained
        if lora:
            assert all("lora" in name for name in inside + outside)


def test_a_text_model_has_no_vision_to_train(twins):
    model = load_model(twins["qwen3"])
    assert vision_parts(model) == {}
    with pytest.raises(ValueError, match=r"model\.trained vision: .* reads text alone; take all or language"):
        learning(model, changed(twins["qwen3"], trained="vision"))
    assert learned(changed(twins["qwen3"], trained="language"))[1]


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """With adapters that change something."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    return model


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(20, 40)[None]).logits


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_an_adapter_on_an_adapter_is_read_back_as_it_was_trained(twins, tmp_path, dora):
    """The second is trained on the merged first, as RFT on its warm-up, and its folder holds both."""
    params = changed(twins["qwen3"], lora={**LORA, "dora": dora, "output": "adapter"})
    first = moved(learning(load_model(params), params))
    save_weights(first, params, None, tmp_path / "first")
    second = moved(learning(load_model(params, tmp_path / "first"), params))
    with second.disable_adapter():
        torch.testing.assert_close(logits(second), logits(first), rtol=0, atol=1e-5)
    save_weights(second, params, tmp_path / "first", tmp_path / "second")
    assert not list((tmp_path / "second").glob("model*"))
    (tmp_path / "first").rename(tmp_path / "gone")
    read = load_model(params, tmp_path / "second")
    torch.testing.assert_close(logits(read), logits(second), rtol=0, atol=1e-5)
    assert (logits(read) - logits(first)).abs().max() > 1e-3


def test_the_reference_is_the_adapter_switched_off(twins):
    params = changed(twins["qwen3"], lora=LORA)
    model = moved(learning(load_model(params), params))
    reference = Reference(model, 1.0)
    assert reference._policy.model is model
    with reference._off():
        torch.testing.assert_close(logits(model), logits(load_model(params)), rtol=0, atol=1e-6)


def test_four_bits_without_bitsandbytes_are_refused_by_name(twins, monkeypatch):
    params = changed(twins["qwen3"], lora={**LORA, "quantize": "nf4"})
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(ValueError, match=r"model\.lora\.quantize nf4 needs bitsandbytes: pip install bitsandbytes"):
        load_model(params, quantize=True)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_four_bits_are_trained_on_and_the_adapter_is_merged_into_whole_weights(twins, tmp_path):
    params = changed(twins["qwen3"], lora={**LORA, "quantize": "nf4"})
    model = moved(learning(load_model(params, quantize=True), params))
    assert any(p.dtype == torch.uint8 for p in model.parameters())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    save_weights(model, params, None, tmp_path / "merged")
    merged = load_model(params, tmp_path / "merged")
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    unmoved = load_model(params)
    assert (logits(merged) - logits(unmoved)).abs().max() > 1e-3


def test_four_bits_are_not_sharded():
    raw = load_params().model_dump()
    raw["model"]["lora"] = {**LORA, "quantize": "nf4"}
    raw["launch"] = {"backend": "fsdp", "num_processes": 2}
    with pytest.raises(ValueError, match=r"launch\.backend fsdp: model\.lora\.quantize nf4 .* take launch=ddp"):
        validate(raw, "params.yaml")
    raw["launch"]["backend"] = "ddp"
    assert validate(raw, "params.yaml").model.lora.quantize == "nf4"


def test_sizes_of_pictures_that_are_cut_into_tiles_are_refused(twins):
    with pytest.raises(ValueError, match=r"pictures of smolvlm .* give null for both"):
        load_processor(changed(twins["smolvlm"], max_pixels=1000))
    sizes = load_processor(changed(twins["qwen3_vl"], max_pixels=50176)).image_processor.size
    assert (sizes["shortest_edge"], sizes["longest_edge"]) == (3136, 50176)


def test_an_attention_that_the_engine_cannot_share_prefixes_with_is_refused():
    raw = load_params().model_dump()
    raw["model"]["attention"] = "eager"
    with pytest.raises(ValueError, match=r"model\.attention eager: the engine kshot .* or rft\.engine trl"):
        validate(raw, "params.yaml")
    raw["rft"]["engine"] = "trl"
    assert validate(raw, "params.yaml").model.attention == "eager"
    raw["model"]["attention"] = "flash_attention_2"
    with pytest.raises(ValueError, match="half precision: take dtype bfloat16"):
        validate(raw, "params.yaml")


def test_mixed_precision_is_beside_float32():
    raw = load_params().model_dump()
    raw["model"]["compute"] = "bfloat16"
    assert validate(raw, "params.yaml").model.computing == "bfloat16"
    raw["model"]["dtype"] = "float16"
    with pytest.raises(ValueError, match="compute bfloat16 goes with dtype float32"):
        validate(raw, "params.yaml")
