"""Stage `prepare`: a source becomes a pool. `python -m tasks.prepare --out data/pool`

The pool holds train.jsonl, val.jsonl and test.jsonl (`Record` rows), categories.json, images/ named by pixel hash, and
quarantine.jsonl with everything that was read and not used. Pictures with equal pixels in two splits are refused.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from tasks.data.coco import CocoSplit, DataError, Picture, Quarantined, read_coco
from tasks.data.digits import write_digits
from tasks.data.questions import rank
from tasks.data.records import Record, write_jsonl
from tasks.params import CocoDataset, CocoFiles, DigitsDataset, load_params

SPLITS = ("train", "val", "test")


def read_splits(
    dataset: DigitsDataset | CocoDataset, scratch: Path
) -> tuple[dict[str, list[Picture]], list[Quarantined]]:
    """Pictures by split; where COCO gives no val file, `num_val` train pictures are held out by their hash."""
    categories = None
    if isinstance(dataset, DigitsDataset):
        sources = write_digits(dataset, scratch)
    else:
        files: dict[str, CocoFiles | None] = {split: getattr(dataset, split) for split in SPLITS}
        sources = {split: CocoSplit(Path(f.annotations), Path(f.images)) for split, f in files.items() if f}
        categories = dataset.categories
    pictures, aside = {}, []
    for split, source in sources.items():
        pictures[split], more = read_coco(source, categories)
        aside += more
        pictures[split].sort(key=lambda p: rank(split, p.record.pixel_hash))
    if "val" not in pictures:
        pictures["val"], pictures["train"] = pictures["train"][: dataset.num_val], pictures["train"][dataset.num_val :]
    pictures["val"] = pictures["val"][: dataset.num_val]
    pictures["test"] = pictures["test"][: dataset.num_test]
    return pictures, aside


def refuse_leaks(pictures: dict[str, list[Picture]]) -> None:
    """DataError if pixels of one split stand in another."""
    seen: dict[str, tuple[str, Picture]] = {}
    for split, members in pictures.items():
        for picture in members:
            other, twin = seen.setdefault(picture.record.pixel_hash, (split, picture))
            if other != split:
                raise DataError(
                    f"the same pixels are in {other} ({twin.source}) and in {split} ({picture.source}): remove one"
                )


def copy_into(pool: Path, picture: Picture) -> Record:
    """The record, its picture copied to images/ under its pixel hash."""
    record = picture.record
    name = f"images/{record.pixel_hash[:20]}{picture.source.suffix.lower()}"
    shutil.copyfile(picture.source, pool / name)
    return Record(record.pixel_hash[:20], name, record.width, record.height, record.pixel_hash, record.objects)


def prepare(dataset: DigitsDataset | CocoDataset, out: Path) -> dict:
    """Write the pool to `out`; returns the counts."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures, aside = read_splits(dataset, Path(scratch))
        refuse_leaks(pictures)
        (out / "images").mkdir(parents=True)
        records = {split: [copy_into(out, p) for p in members] for split, members in pictures.items()}
        aside = [
            Quarantined(os.path.relpath(q.file, scratch) if scratch in q.file else q.file, q.kind, q.item, q.reason)
            for q in aside
        ]
    for split, rows in records.items():
        write_jsonl(out / f"{split}.jsonl", rows)
    categories = sorted({c for rows in records.values() for r in rows for c in r.categories})
    (out / "categories.json").write_text(json.dumps(categories, ensure_ascii=False) + "\n")
    write_jsonl(out / "quarantine.jsonl", aside)
    return {
        **{split: len(rows) for split, rows in records.items()},
        "categories": len(categories),
        "quarantined": len(aside),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(prepare(load_params().dataset, args.out)))


if __name__ == "__main__":
    main()
