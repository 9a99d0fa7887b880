"""Trained folders that were damaged after they were written: none is loaded in silence, each file is named."""

import shutil
from pathlib import Path

import pytest
import torch

from tasks.models.adapters import learning, save_weights
from tasks.models.integrity import SUMS, verify
from tasks.models.loading import load_model
from tasks.params import Model
from tests.models.twins import write_twin

LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear", "output": "adapter"}
FIX = r"copy .* again, or remove it and let `dvc repro` train it anew"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Model, Path]:
    """The section `model` of a twin, and a folder with its whole weights and its adapter as training writes them."""
    folder = tmp_path_factory.mktemp("trained")
    params = write_twin("qwen3", folder / "base")
    model = load_model(params)
    save_weights(model, params, None, folder / "whole")
    with_adapter = params.model_copy(update={"lora": Model.model_validate({**params.model_dump(), "lora": LORA}).lora})
    save_weights(learning(model, with_adapter), with_adapter, None, folder / "adapter")
    return with_adapter, folder


def missing(path: Path) -> None:
    path.unlink()


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(("kind", "name"), [("whole", "model"), ("adapter", "adapter_model")])
@pytest.mark.parametrize(
    ("damage", "why"), [(missing, "missing"), (half, "not the file that was written"), (flip, "SHA-256 is another")]
)
def test_damaged_weights_are_refused_by_name(trained, tmp_path, kind, name, damage, why):
    params, folder = trained
    shutil.copytree(folder / kind, tmp_path / kind)
    load_model(params, tmp_path / kind)
    damage(tmp_path / kind / f"{name}.safetensors")
    with pytest.raises(ValueError, match=rf"{kind}/{name}\.safetensors: .*{why}.*{FIX}"):
        load_model(params, tmp_path / kind)


def test_a_pickle_alone_is_never_loaded(trained, tmp_path):
    shutil.copytree(trained[1] / "whole", tmp_path / "whole")
    for name in ("model.safetensors", SUMS):
        (tmp_path / "whole" / name).unlink()
    torch.save({}, tmp_path / "whole" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"whole: no weights .*pytorch_model\.bin is a pickle, which is never loaded"):
        load_model(trained[0], tmp_path / "whole")


def test_a_folder_without_hashes_is_read_where_its_files_are_whole(trained, tmp_path):
    shutil.copytree(trained[1] / "whole", tmp_path / "whole")
    (tmp_path / "whole" / SUMS).unlink()
    verify(tmp_path / "whole")
    half(tmp_path / "whole" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: no whole safetensors file"):
        verify(tmp_path / "whole")


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_damaged_hashes_are_refused_by_name(trained, tmp_path, text):
    shutil.copytree(trained[1] / "whole", tmp_path / "whole")
    (tmp_path / "whole" / SUMS).write_text(text)
    with pytest.raises(ValueError, match=rf"{SUMS}: no list of hashes"):
        load_model(trained[0], tmp_path / "whole")
