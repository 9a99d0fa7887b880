"""Trained weights are loaded as they were written, or not at all: their SHA-256 stand beside them.

A flipped bit in a safetensors file is otherwise loaded in silence.
"""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

SUMS = "weights.sha256.json"  # {file: its hash}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the hashes of the folder's weights."""
    sums = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    (folder / SUMS).write_text(json.dumps(sums, indent=1) + "\n")


def verify(folder: Path) -> None:
    """ValueError names the file of a trained folder that is not the one that `seal` saw, or that cannot be read at all.
    In a folder without hashes, which somebody else made, a wrong bit is not found.
    """
    sums = _sums(folder / SUMS)
    found = sorted(folder.glob("*.safetensors"))
    if not found and not sums:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        why = f"; {pickles[0]} is a pickle, which is never loaded: save it as safetensors" if pickles else ""
        raise ValueError(f"{folder}: no weights (*.safetensors){why or ': give a trained folder'}")
    for name in sums:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing, and {SUMS} names it; {_fix(folder)}")
        if sha256(path) != sums[name]:
            raise ValueError(f"{path}: not the file that was written (its SHA-256 is another); {_fix(folder)}")
    for path in found:
        if sums and path.name not in sums:
            raise ValueError(f"{path}: not named by {SUMS}, so nobody knows whose it is; remove it")
        try:
            with safe_open(path, "np"):
                pass  # its header is whole, and the file as long as that says
        except SafetensorError as error:
            raise ValueError(f"{path}: no whole safetensors file ({error}); {_fix(folder)}") from None


def _sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        sums = None
    if not (isinstance(sums, dict) and sums and all(isinstance(value, str) for value in sums.values())):
        raise ValueError(f"{path}: no list of hashes; {_fix(path.parent)}")
    return sums


def _fix(folder: Path) -> str:
    return f"copy {folder} again, or remove it and let `dvc repro` train it anew"
