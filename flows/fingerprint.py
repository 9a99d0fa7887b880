"""What a user's files held when the study was composed, so that DVC sees that they have changed."""

import hashlib
from pathlib import Path


def _told(path: Path) -> str:
    """A file by its bytes; a folder, which may hold a hundred thousand pictures, by the names and sizes in it."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)


def fingerprint(dataset: dict) -> str | None:
    """sha256 over the files and folders that the splits of the section `dataset` name; None where there is none here
    (a hub id, data on another machine). Equal on every machine: no times and no absolute paths.
    """
    digest, found = hashlib.sha256(), False
    for split in ("train", "val", "test"):
        for name, value in (dataset[split] or {}).items():
            path = Path(value) if isinstance(value, str) else None
            if path and path.exists():
                digest.update(f"{split}.{name}\n{_told(path)}\n".encode())
                found = True
    return digest.hexdigest() if found else None
