"""The embedded data set: scenes of real handwritten digits, written as COCO JSON and PNG, as a user's own data would
be.

The handwriting is scikit-learn's `load_digits` (UCI, Alpaydin & Kaynak 1998: 1,797 pictures of 8 x 8 pixels). The
source pictures are split first and composed afterwards, so that no handwritten digit of a test scene is in a train or
val scene.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tasks.data.coco import CocoSplit
from tasks.data.scenes import CATEGORIES, Glyph, compose, crop_to_ink
from tasks.params import DigitsDataset

SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}  # of the 1,797 source pictures


def source_split(seed: int) -> dict[str, np.ndarray]:
    """Indices into `load_digits` for each split: disjoint, and together all of them."""
    order = np.random.default_rng([seed, 0]).permutation(len(load_digits().target))
    ends = np.cumsum([round(share * len(order)) for share in SHARES.values()])
    return dict(zip(SHARES, np.split(order, ends[:-1]), strict=True))


def write_scenes(folder: Path, draw: Callable[[], Glyph], num_scenes: int, rng: np.random.Generator) -> CocoSplit:
    """Compose `num_scenes` scenes of 1-4 digits that `draw` yields into `folder`/images and
    `folder`/annotations.json.
    """
    (folder / "images").mkdir(parents=True)
    coco: dict = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": n + 1, "name": name} for n, name in enumerate(CATEGORIES)]
    for n in range(1, num_scenes + 1):
        scene = compose(rng, draw, int(rng.integers(1, 5)))
        name = f"{n:05d}.png"
        Image.fromarray(scene.image).save(folder / "images" / name)
        coco["images"].append(
            {"id": n, "file_name": name, "width": scene.image.shape[1], "height": scene.image.shape[0]}
        )
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": n,
                    "category_id": CATEGORIES.index(item.category) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations.json").write_text(json.dumps(coco))
    return CocoSplit(folder / "annotations.json", folder / "images")


def write_digits(params: DigitsDataset, folder: Path) -> dict[str, CocoSplit]:
    """The three splits as COCO data sets under `folder`, ready for the COCO reader."""
    source = load_digits()
    sizes = {"train": params.num_train, "val": params.num_val, "test": params.num_test}
    splits = {}
    for n, (split, indices) in enumerate(source_split(params.seed).items()):
        rng = np.random.default_rng([params.seed, 1, n])

        def draw(rng: np.random.Generator = rng, indices: np.ndarray = indices) -> Glyph:
            chosen = rng.choice(indices)
            mask = (source.images[chosen] / 16).astype(np.float32)  # 17 grey levels
            return Glyph(int(source.target[chosen]), crop_to_ink(mask))

        splits[split] = write_scenes(folder / split, draw, sizes[split], rng)
    return splits
