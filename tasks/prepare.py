"""Stage `prepare`: a source becomes a pool.

    python -m tasks.prepare --out data/pool                       # the `dataset` of params.yaml
    python -m tasks.prepare --source coco --annotations gt.json --images pictures --out pool        # one file, alone

The pool holds train.jsonl, val.jsonl and test.jsonl (`Record` rows), images/ named by pixel hash, categories.json (what
test asks) and categories_train.json (detection categories and classes), quarantine.jsonl with everything that was read
and not used, near_duplicates.jsonl, and pool.json: counts, hashes, names as the files write them, LVIS's frequencies.

Every item read is used, quarantined or left out (its category or its share of the split was not asked for). With
`categories`, test keeps the pictures that are known not to show them too: `grade.existence` all or model asks there,
and a box is a false alarm. Pictures with equal pixels in two splits are refused; those that only look alike are listed
and reported.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.data.command import parse_dataset
from tasks.data.digits import write_digits
from tasks.data.drafts import Quarantined
from tasks.data.ingest import Picture, Split, ingest, nfc
from tasks.data.near import near_duplicates
from tasks.data.pictures import copy_picture
from tasks.data.questions import rank, together
from tasks.data.records import DataError, Record, write_jsonl
from tasks.data.sources import READERS
from tasks.data.words import write_words
from tasks.params import DigitsDataset, ParamsError, WordsDataset, load_params
from tasks.schema.base import Section
from tasks.schema.dataset import FileDataset

SPLITS = ("train", "val", "test")
KINDS = ("image", "problem", "annotation")  # of items
HELD_OUT = {"val": 10, "test": 5}  # one picture in so many of train, where there is neither a file nor a number


def _read_files(dataset: FileDataset, scratch: Path) -> dict[str, Split]:
    splits, wanted, shown = {}, {}, set()
    for split in SPLITS:
        files: Section | None = getattr(dataset, split)
        if files is None:
            continue
        folder = scratch / split
        folder.mkdir()
        wanted[split] = dataset.test_categories if split == "test" and dataset.test_categories else dataset.categories
        tests = split == "test" or (split == "train" and dataset.test is None)  # of which the test is held out
        reading = READERS[dataset.source](files, folder)
        splits[split] = ingest(reading, wanted[split], f"read {split}", with_absent=tests)
        shown |= _shown(p.record for p in splits[split].pictures)
    asked = {nfc(name) for names in wanted.values() for name in names or ()}
    if missing := sorted(asked - shown):
        raise DataError(
            f"dataset.categories: no usable picture shows {missing}; "
            f"the data has {', '.join(sorted(set.union(*(s.names for s in splits.values())))) or 'none'}"
        )
    return splits


def _shown(records: Iterable[Record]) -> set[str]:
    """Detection categories, classes and kinds of instructions of the records."""
    return {name for r in records for name in (*r.categories, r.label, *_kinds(r)) if name}


def _kinds(record: Record) -> set[str | None]:
    """Of its instructions, and of its problem."""
    return {told.category for told in (*record.referring, record.problem) if told}


def _keep(split: Split, pictures: Sequence[Picture]) -> None:
    """Keep only `pictures` of the split and count the others as left out."""
    chosen = {p.record.pixel_hash for p in pictures}
    for picture in split.pictures:
        if picture.record.pixel_hash not in chosen:
            split.left_out.update(picture.items)
    split.pictures = list(pictures)


def _first(pictures: Sequence[Picture], num: int | None) -> list[Picture]:
    """The first `num` that show a chosen category (None: all), and those that show none as they come between them."""
    places = [place for place, picture in enumerate(pictures) if picture.shows]
    return list(pictures if num is None or num >= len(places) else pictures[: places[num]])


def arrange(dataset: FileDataset, splits: dict[str, Split]) -> dict[str, list[Picture]]:
    """Train, val and test pictures in an order of their own; a missing split is held out of train. Only test has those
    that show no chosen category.
    """
    for name, split in splits.items():
        split.pictures.sort(key=lambda p: (rank(name, p.shown), p.record.pixel_hash))
    pictures = {"train": splits["train"].pictures}
    for name in ("test", "val"):
        num = getattr(dataset, f"num_{name}")
        if name in splits:
            _keep(splits[name], _first(splits[name].pictures, num))
            pictures[name] = splits[name].pictures
            continue
        rest = pictures["train"]
        showing = sum(p.shows for p in rest)
        num = num or max(1, showing // HELD_OUT[name])
        held = together([p.shown for p in rest], len(_first(rest, num)))
        if num >= showing or held == len(rest):
            raise DataError(f"dataset.num_{name}: {num} pictures to hold out of the {showing} of train; lower it")
        pictures[name], rest = rest[:held], rest[held:]
        pictures["train"] = [p for p in rest if p.shows]
        splits["train"].left_out.update(item for p in rest if not p.shows for item in p.items.elements())
    return {name: pictures[name] for name in SPLITS}


def leave_out_shared(splits: dict[str, Split], pictures: dict[str, list[Picture]]) -> None:
    """Without those of train, and of val, whose pixels test has, or val."""
    seen: set[str] = set()
    for name in reversed(SPLITS):
        own = pictures[name]
        pictures[name] = [p for p in own if p.shown not in seen]
        for picture in own:
            if picture.shown in seen:
                splits[name if name in splits else "train"].left_out.update(picture.items)
        seen |= {p.shown for p in own}


def refuse_leaks(pictures: dict[str, list[Picture]]) -> None:
    """DataError if pixels of one split stand in another."""
    seen: dict[str, tuple[str, Picture]] = {}
    for split, members in pictures.items():
        for picture in members:
            other, twin = seen.setdefault(picture.shown, (split, picture))
            if other != split:
                raise DataError(
                    f"the same {picture.what} are in {other} ({twin.source}) and in {split} ({picture.source}): "
                    "remove one, or take ++dataset.leave_out_shared=true"
                )


def refuse_too_many(splits: dict[str, Split], most: float, report: Path) -> None:
    """DataError, after writing the list to `report`, if more than the share `most` of a kind of item was put aside."""
    aside = [q for split in splits.values() for q in split.aside]
    read = sum((split.read for split in splits.values()), Counter())
    for kind in KINDS:
        num = sum(q.kind == kind for q in aside)
        if num > most * read[kind]:
            report.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(report, aside)
            first = next(q for q in aside if q.kind == kind)
            raise DataError(
                f"{num} of {read[kind]} {kind} items cannot be used ({first.file}, {kind} {first.item}: "
                f"{first.reason}); see {report}, and mend the files or raise dataset.max_quarantined above {most}"
            )


def counts_by_fault(aside: Sequence[Quarantined]) -> dict[str, int]:
    """How many items were put aside for each fault, the most frequent first."""
    return dict(Counter(f"{q.kind}: {q.fault}" for q in aside).most_common())


def copy_into(pool: Path, picture: Picture) -> Record:
    """The record, its picture, if it has one, put into images/."""
    known_by = picture.record.pixel_hash[:20]
    if picture.record.problem:
        return replace(picture.record, id=known_by)
    name = copy_picture(picture.source, picture.look, pool / "images")
    return replace(picture.record, id=known_by, image=f"images/{name}")


def _write(out: Path, name: str, value: object) -> None:
    (out / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _pool_card(out: Path, splits: dict[str, Split], summary: dict) -> dict:
    files = [*(f"{split}.jsonl" for split in SPLITS), "categories.json", "categories_train.json"]
    return {
        **summary,
        "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files},
        "names_in_files": {k: v for split in splits.values() for k, v in sorted(split.renamed.items())},
        "frequency": {k: v for split in splits.values() for k, v in sorted(split.frequency.items())},
    }


def asked_categories(dataset: FileDataset, records: dict[str, list[Record]]) -> tuple[set[str], set[str]]:
    """Detection categories and classes of train and val, and those of test. They are the same, so that a category that
    only test shows is found missing in train, unless `test_categories` says that they are not.
    """
    given = {name: set(map(nfc, getattr(dataset, name, None) or ())) for name in ("categories", "test_categories")}
    kinds = {kind for rows in records.values() for r in rows for kind in _kinds(r)}
    shown = {split: {n for r in rows for n in (*r.categories, r.label) if n} for split, rows in records.items()}
    learnt = shown["train"] | shown["val"] | (given["categories"] - kinds)
    if given["test_categories"]:
        return learnt, given["test_categories"] - kinds
    return learnt | shown["test"], learnt | shown["test"]


def _write_pool(dataset: FileDataset, out: Path, splits: dict[str, Split], pictures: dict[str, list[Picture]]) -> dict:
    (out / "images").mkdir(parents=True)
    used = sum((p.items for members in pictures.values() for p in members), Counter())
    records = {split: [copy_into(out, p) for p in members] for split, members in pictures.items()}
    for split, rows in records.items():
        write_jsonl(out / f"{split}.jsonl", rows)
    train, test = asked_categories(dataset, records)
    _write(out, "categories_train.json", sorted(train))
    _write(out, "categories.json", sorted(test))
    aside = [q for split in splits.values() for q in split.aside]
    write_jsonl(out / "quarantine.jsonl", aside)
    near = near_duplicates(pictures)
    write_jsonl(out / "near_duplicates.jsonl", near)
    total = {name: sum((getattr(s, name) for s in splits.values()), Counter()) for name in ("read", "left_out")}
    kinds = [kind for kind in KINDS if total["read"][kind] or kind != "problem"]
    return {
        **{split: len(rows) for split, rows in records.items()},
        "categories": len(train | test),
        "read": {kind: total["read"][kind] for kind in kinds},
        "used": {kind: used[kind] for kind in kinds},
        "left_out": {kind: total["left_out"][kind] for kind in kinds},
        "quarantined": len(aside),
        "faults": counts_by_fault(aside),
        "near_duplicates": len(near),
    }


def prepare(dataset: DigitsDataset | WordsDataset | FileDataset, out: Path) -> dict:
    """Write the pool to `out`; returns the counts."""
    if out.exists():
        raise DataError(f"{out}: exists already; remove it or give another --out")
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(dataset, DigitsDataset):
            dataset = write_digits(dataset, Path(scratch) / "digits")
        elif isinstance(dataset, WordsDataset):
            dataset = write_words(dataset, Path(scratch) / "words")
        splits = _read_files(dataset, Path(scratch))
        refuse_too_many(splits, dataset.max_quarantined, out.with_name(f"{out.name}.quarantine.jsonl"))
        pictures = arrange(dataset, splits)
        if dataset.leave_out_shared:
            leave_out_shared(splits, pictures)
        refuse_leaks(pictures)
        for split in splits.values():
            split.aside = [replace(q, file=_relative(q.file, scratch)) for q in split.aside]
        partial = out.with_name(f"{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        summary = _write_pool(dataset, partial, splits, pictures)
        _write(partial, "pool.json", _pool_card(partial, splits, summary))
        partial.rename(out)
    return summary


def _relative(file: str, scratch: str) -> str:
    """Files of our own making without the name of the scratch folder, which differs from run to run."""
    return os.path.relpath(file, scratch) if file.startswith(scratch) else file


def _say(summary: dict) -> None:
    for fault, num in summary["faults"].items():
        print(f"put aside: {num} {fault}", file=sys.stderr)
    if summary["near_duplicates"]:
        print(f"near duplicates across splits: {summary['near_duplicates']} (near_duplicates.jsonl)", file=sys.stderr)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", choices=sorted(READERS), help="read this instead of params.yaml")
    args, rest = parser.parse_known_args()
    try:
        if args.source is None and rest:
            parser.error(f"{' '.join(rest)}: without --source the data set is that of params.yaml")
        dataset = parse_dataset(args.source, rest) if args.source else load_params().dataset
        summary = prepare(dataset, args.out)
    except (DataError, ParamsError) as error:
        sys.exit(f"prepare: {error}")
    _say(summary)
    print(json.dumps(summary, ensure_ascii=False))


if __name__ == "__main__":
    main()
