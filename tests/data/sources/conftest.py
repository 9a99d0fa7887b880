"""Small data sets in the layout of the official ones, and the way they take through a reader and the checks."""

import pytest
from PIL import Image

from tasks.data.ingest import Split, ingest
from tasks.data.sources import READERS
from tasks.schema.base import Section


@pytest.fixture
def read(tmp_path):
    """`read(source, files, categories)` -> Split; the scratch folder is new each time."""

    def read(source: str, files: Section, categories: list[str] | None = None) -> Split:
        scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        return ingest(READERS[source](files, scratch), categories, source)

    return read


@pytest.fixture
def draw():
    """`draw(path, shade, size)`: a picture of one colour; different shades are different pictures."""

    def draw(path, shade: int, size=(20, 10)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (shade, 0, 255 - shade)).save(path, quality=95)

    return draw
