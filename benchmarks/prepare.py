"""How fast `tasks.prepare` is and what it needs: `python -m benchmarks.prepare --annotations 100000 --pictures 20000`

Makes a COCO data set of JPEGs of COCO's size in a temporary folder, prepares it in a process of its own, and prints
seconds, peak memory of that process, and its summary.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def write_coco(folder: Path, num_annotations: int, num_pictures: int, width: int, height: int) -> None:
    """Pictures of blurred noise, all different, and as many boxes for each."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations = [], []
    for n in range(num_pictures):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.BILINEAR).save(folder / "images" / f"{n}.jpg", quality=85)
        images.append({"id": n, "file_name": f"{n}.jpg", "width": width, "height": height})
    for n in range(num_annotations):
        x, y = rng.integers(0, width // 2), rng.integers(0, height // 2)
        annotations.append(
            {"id": n, "image_id": n % num_pictures, "category_id": int(n % 80), "iscrowd": 0, "area": 100.0,
             "bbox": [float(x), float(y), width / 4, height / 4], "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]}
        )  # fmt: skip
    categories = [{"id": n, "name": f"category {n}"} for n in range(80)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "gt.json").write_text(json.dumps(coco))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_coco(folder, args.annotations, args.pictures, *args.size)
        words = ["--source", "coco", "--annotations", str(folder / "gt.json"), "--images", str(folder / "images")]
        began = time.perf_counter()
        command = [sys.executable, "-m", "tasks.prepare", *words, "--out", str(folder / "pool")]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "annotations": args.annotations, "pictures": args.pictures, "size": args.size, "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "peak_mb": round(usage.ru_maxrss / 1024),
    }  # fmt: skip
    print(json.dumps(figures | {"summary": json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
