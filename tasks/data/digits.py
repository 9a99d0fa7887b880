"""The embedded data: scenes of real handwritten digits, written to disk in the official layouts (COCO, class folders,
LISA) and read back as a user's own data would be.

The handwriting is scikit-learn's `load_digits` (UCI, Alpaydin & Kaynak 1998: 1,797 pictures of 8 x 8 pixels). The
source pictures are split first and composed afterwards, so that no handwritten digit of a test scene is in a train or
val scene.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tasks.data.referring import one_kind
from tasks.data.scenes import CATEGORIES, INKS, SIDE, Glyph, Scene, compose, crop_to_ink
from tasks.params import DigitsDataset
from tasks.schema.dataset import CocoDataset, CocoFiles, FileDataset, FolderDataset, FolderFiles, LisaDataset, LisaFiles

SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}  # of the 1,797 source pictures


def source_split(seed: int) -> dict[str, np.ndarray]:
    """Indices into `load_digits` for each split: disjoint, and together all of them."""
    order = np.random.default_rng([seed, 0]).permutation(len(load_digits().target))
    ends = np.cumsum([round(share * len(order)) for share in SHARES.values()])
    return dict(zip(SHARES, np.split(order, ends[:-1]), strict=True))


def write_coco(folder: Path, scenes: Iterable[Scene], inked: bool = False) -> None:
    """Detection: images/ and annotations.json (COCO instances). `inked` scenes have 60 categories: 'red seven', ..."""
    names = [f"{ink} {digit}" for ink in INKS for digit in CATEGORIES] if inked else list(CATEGORIES)
    (folder / "images").mkdir(parents=True)
    coco: dict = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    for n, scene in enumerate(scenes, start=1):
        file = f"{n:05d}.png"
        Image.fromarray(scene.image).save(folder / "images" / file)
        coco["images"].append({"id": n, "file_name": file, "width": SIDE, "height": SIDE})
        for item, ink in zip(scene.objects, scene.inks, strict=True):
            x1, y1, x2, y2 = item.box
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": n,
                    "category_id": names.index(f"{ink} {item.category}" if inked else item.category) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations.json").write_text(json.dumps(coco))


def write_classes(folder: Path, scenes: Iterable[Scene]) -> None:
    """Classification: a folder for each digit, scenes of one digit in them."""
    for n, scene in enumerate(scenes, start=1):
        home = folder / scene.objects[0].category
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(home / f"{n:05d}.png")


def write_lisa(folder: Path, scenes: Iterable[Scene], rng: np.random.Generator) -> None:
    """Reasoning grounding: a picture and a JSON of LISA's layout for each scene, with one digit meant: by its size, a
    phrase, or as the sum of two others, a sentence in up to three wordings. Scenes without such a digit are left out.
    """
    folder.mkdir(parents=True)
    for n, scene in enumerate(scenes, start=1):
        told, is_sum = one_kind(scene.objects, rng)
        if not told:
            continue
        instruction, meant = told[rng.integers(len(told))]
        wordings = [text for text, o in told if o == meant and text != instruction]
        x1, y1, x2, y2 = meant.box
        shape = {"label": "target", "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}
        row = {"text": [instruction, *wordings[:2]], "is_sentence": is_sum, "shapes": [shape]}
        Image.fromarray(scene.image).save(folder / f"{n:05d}.jpg", quality=95, subsampling=0)
        (folder / f"{n:05d}.json").write_text(json.dumps(row))


def scenes(draw: Callable[[], Glyph], num: int, rng: np.random.Generator, digits: tuple[int, int]) -> Iterator[Scene]:
    """`num` scenes of `digits` = (fewest, most) digits that `draw` yields."""
    return (compose(rng, draw, int(rng.integers(digits[0], digits[1] + 1))) for _ in range(num))


def write_task(task: str, folder: Path, draw: Callable[[], Glyph], num: int, rng: np.random.Generator) -> None:
    """`num` scenes for one of the embedded tasks, in that task's layout."""
    if task == "classification":
        write_classes(folder, scenes(draw, num, rng, (1, 1)))
    elif task == "grounding":
        write_lisa(folder, scenes(draw, num, rng, (2, 4)), rng)
    else:
        write_coco(folder, scenes(draw, num, rng, (1, 4)), inked=task == "open_vocabulary")


def as_files(params: DigitsDataset, folder: Path) -> FileDataset:
    """The three splits under `folder` as a user would name them in conf/dataset."""
    chosen = {"categories": params.categories, "test_categories": params.test_categories}
    if params.task == "classification":
        files = {split: FolderFiles(images=str(folder / split)) for split in SHARES}
        return FolderDataset(source="folder", **chosen, **files)
    if params.task == "grounding":
        files = {split: LisaFiles(images=str(folder / split)) for split in SHARES}
        return LisaDataset(source="lisa", **chosen, **files)
    files = {
        split: CocoFiles(annotations=str(folder / split / "annotations.json"), images=str(folder / split / "images"))
        for split in SHARES
    }
    return CocoDataset(source="coco", **chosen, **files)


def write_digits(params: DigitsDataset, folder: Path) -> FileDataset:
    """Compose the three splits into `folder`; returns the data set that they are."""
    source = load_digits()
    sizes = {"train": params.num_train, "val": params.num_val, "test": params.num_test}
    for n, (split, indices) in enumerate(source_split(params.seed).items()):
        rng = np.random.default_rng([params.seed, 1, n])

        def draw(rng: np.random.Generator = rng, indices: np.ndarray = indices) -> Glyph:
            chosen = rng.choice(indices)
            mask = (source.images[chosen] / 16).astype(np.float32)  # 17 grey levels
            return Glyph(int(source.target[chosen]), crop_to_ink(mask))

        write_task(params.task, folder / split, draw, sizes[split], rng)
    return as_files(params, folder)
