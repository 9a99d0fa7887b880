"""A COCO data set as pictures at once, for what needs no pool."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.data.drafts import Quarantined
from tasks.data.ingest import Picture, ingest
from tasks.data.sources.coco import read_coco as read_drafts
from tasks.schema.dataset import CocoFiles


@dataclass(frozen=True)
class CocoSplit:
    annotations: Path
    images: Path

    @property
    def files(self) -> CocoFiles:
        return CocoFiles(annotations=str(self.annotations), images=str(self.images))


def read_coco(split: CocoSplit, categories: Collection[str] | None) -> tuple[list[Picture], list[Quarantined]]:
    """All pictures with their usable objects, and everything that was put aside. With `categories`, only the pictures
    that show one of them, and only their objects.
    """
    done = ingest(read_drafts(split.files, split.images), categories, f"read {split.annotations.name}")
    return done.pictures, done.aside
