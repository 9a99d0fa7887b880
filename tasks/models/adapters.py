"""What of a model learns: the language model, the vision tower or both; whole weights or an adapter beside them."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from tasks.models.integrity import seal
from tasks.models.loading import ADAPTER, UNDER, load_model
from tasks.params import Model

# Where the classes of transformers keep what makes features of a picture; all else is the language model.
VISION = ("visual", "vision_model", "vision_tower", "connector", "multi_modal_projector")


def vision_parts(model: PreTrainedModel) -> dict[str, nn.Module]:
    """{name: module} of a model without PEFT; none where it reads text alone."""
    parts = {name: getattr(model.model, name, None) for name in VISION}
    return {name: module for name, module in parts.items() if module is not None}


def without_adapter(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model itself. PEFT puts adapters into its layers, so its forward pass has them all the same."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def learning(model: PreTrainedModel, params: Model) -> PreTrainedModel | PeftModel:
    """`model` with what learns set to learn, and all else frozen."""
    parts = vision_parts(model)
    if params.trained == "vision" and not parts:
        raise ValueError(f"model.trained vision: {params.path} reads text alone; take all or language")
    if params.lora is not None:
        return _with_adapter(model, params, parts)
    if params.trained != "all":
        vision = {id(p) for module in parts.values() for p in module.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_((id(parameter) in vision) == (params.trained == "vision"))
    return model


def _with_adapter(model: PreTrainedModel, params: Model, parts: dict[str, nn.Module]) -> PeftModel:
    lora = params.lora
    inside = "|".join(map(re.escape, parts)) or "$^"
    excluded = {  # of modules named model.visual.blocks.0.attn.qkv, model.language_model.layers.0.mlp.up_proj, ...
        "all": None,
        "language": rf"model\.({inside})\..*",
        "vision": rf"(?!model\.({inside})\.).*",
    }[params.trained]
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.target_modules,
        exclude_modules=excluded, use_dora=lora.dora,
    )  # fmt: skip
    return get_peft_model(model, config)


def save_weights(model: PreTrainedModel | PeftModel, params: Model, init: Path | None, out: Path) -> None:
    """Whole weights in `out`, the adapter merged; or, with lora.output adapter, the adapter alone, beside that of
    `init` (which the run began with), if it is one: `load_model` reads both, and checks the hashes written here.
    """
    if isinstance(model, PeftModel) and params.lora.output == "merged":
        _merged(model, params, init).save_pretrained(out)
        seal(out)
    else:
        save_learned(model, init, out)


def save_learned(model: PreTrainedModel | PeftModel, init: Path | None, out: Path) -> None:
    """Whole weights in `out`, or the adapter alone, beside that of `init`, without which it is another model's."""
    model.save_pretrained(out)
    if isinstance(model, PeftModel) and init is not None and (init / ADAPTER).is_file():
        kept = shutil.ignore_patterns("history.json", "checkpoints", "events.jsonl")
        shutil.copytree(init, out / UNDER, ignore=kept)
    seal(out)


def merged_state(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    """The state dict of the model with its adapter merged. `model` stays as it is, bit for bit: merging in half
    precision and taking it back would not be exact, so that frozen weights would drift.
    """
    if not isinstance(model, PeftModel):
        return model.state_dict()
    base = without_adapter(model)
    merged: dict[str, torch.Tensor] = {}
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer()
            kept, layer.weight.data = layer.weight.data, layer.weight.data.clone()
            module.merge()
            merged[f"{name}.weight"] = layer.weight.data.clone()
            module.unmerge()
            layer.weight.data = kept
    plain = {name.replace(".base_layer.", "."): value for name, value in base.state_dict().items()}
    return {name: merged.get(name, value) for name, value in plain.items() if "lora_" not in name}


def _merged(model: PeftModel, params: Model, init: Path | None) -> PreTrainedModel:
    """A quantized model is merged into the weights that it was quantized from: into 4 bits it would be rounded."""
    if not params.lora.quantize:
        return model.merge_and_unload()
    with TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        return PeftModel.from_pretrained(load_model(params, init), scratch).merge_and_unload()
