"""Stage `slice`: a pool becomes a k-shot slice. `python -m tasks.slice --pool data/pool --k 4 --seed 0 --out
data/slice/4-0` takes the section `slice` of params.yaml, where there is one, and flags in its place.

train.jsonl and val.jsonl hold `Question` rows; manifest.json counts, hashes and names them. k counts pictures:

    detection        k that show a category, for every category
    classification   k of a class, for every class
    grounding        k with an instruction of a kind, for every kind (LISA: sentence, phrase), or k in all without kinds
    in words         k problems of a kind, for every kind, or k in all without kinds

They are those that come first by hash(seed, category, pixels), so that k = 1 is in k = 2 is in k = 4, on any machine
and in any file order. Each chosen picture is asked for every category that it shows and `slice.num_absent` that it
does not.

With `slice.categories` (open vocabulary), train and val know the base categories only: a novel one is neither asked nor
named, not even in the thinking of an SFT target.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path

from tasks.data.questions import ask, rank
from tasks.data.records import DataError, Question, Record, read_records, write_jsonl
from tasks.params import ParamsError, Slice, load_params

ANY_INSTRUCTION, ANY_PROBLEM = "(instructions)", "(problems)"  # the groups of those without a kind


def groups(record: Record) -> set[str]:
    """What the record is an example of: fully labelled categories, class, kinds of instructions or of problem."""
    shown = set(record.categories) - set(record.not_exhaustive)
    return shown | ({record.label} - {None}) | kinds(record)


def kinds(record: Record) -> set[str]:
    """The kinds of its instructions and of its problem."""
    told = {told.category or ANY_INSTRUCTION for told in record.referring}
    return told | ({record.problem.category or ANY_PROBLEM} if record.problem else set())


def only(record: Record, base: Collection[str]) -> Record | None:
    """The record without any trace of other categories than `base`, and without those that are labelled in part (a
    crowd is, too: a box there is not wrong). None for a picture of another class, of which nothing is left to ask.
    """
    if record.label not in {None, *base} and not (record.objects or record.referring or record.problem):
        return None
    learnt = set(base) - set(record.not_exhaustive) - {o.category for o in record.ignore}
    return replace(
        record,
        objects=tuple(o for o in record.objects if o.category in learnt),
        label=record.label if record.label in learnt else None,
        negative=tuple(c for c in record.negative if c in learnt),
    )


def choose(
    records: list[Record], categories: list[str], k: int, seed: int, allow_fewer: bool
) -> dict[str, list[Record]]:
    """k pictures for each category; nested in k. DataError with have and need where there are fewer."""
    having: dict[str, list[Record]] = {category: [] for category in categories}
    for record in records:
        for group in groups(record) & having.keys():
            having[group].append(record)
    short = [f"{category}: have {len(found)}, need {k}" for category, found in having.items() if len(found) < k]
    if short and not allow_fewer:
        raise DataError(
            f"too few examples for k = {k} ({'; '.join(short)}): lower k (grid.k), or take fewer of these: "
            "slice.allow_fewer=true, or --allow-fewer"
        )
    return {
        category: sorted(found, key=lambda r: rank(seed, category, r.pixel_hash))[:k]
        for category, found in having.items()
    }


def train_questions(chosen: dict[str, list[Record]], categories: list[str], num_absent: int) -> list[Question]:
    """Each chosen picture once, asked for every category that it shows: SFT's thinking names them all, so RFT must be
    rewarded for them all too.
    """
    pictures = {r.id: r for members in chosen.values() for r in members}
    return ask(list(pictures.values()), categories, num_absent)


def digest(questions: list[Question]) -> str:
    return hashlib.sha256("\n".join(sorted(json.dumps(asdict(q)) for q in questions)).encode()).hexdigest()


def base_categories(params: Slice, pool: Path) -> list[str]:
    """What train and val ask; DataError where `slice.categories` names what the pool does not have."""
    path = pool / "categories_train.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a pool that `python -m tasks.prepare --out {pool}` made")
    known = json.loads(path.read_text(encoding="utf-8"))
    if params.categories is None:
        return known
    if missing := sorted(set(params.categories) - set(known)):
        raise DataError(f"slice.categories: {missing} not in {path}, which has {known}")
    return sorted(params.categories)


def make_slice(params: Slice, pool: Path, k: int, seed: int, out: Path) -> dict:
    """Write the slice to `out`; returns its manifest."""
    if out.exists():
        raise DataError(f"{out}: exists already; remove it or give another --out")
    categories = base_categories(params, pool)
    train, val = (
        [kept for r in read_records(pool / f"{split}.jsonl") if (kept := only(r, categories))]
        for split in ("train", "val")
    )
    groups = sorted({*categories}.union(*map(kinds, train)))
    chosen = choose(train, groups, k, seed, params.allow_fewer)
    splits = {
        "train": train_questions(chosen, categories, params.num_absent),
        "val": ask(sorted(val, key=lambda r: rank("val", r.pixel_hash)), categories, params.num_absent),
    }
    if empty := [split for split, questions in splits.items() if not questions]:
        raise DataError(f"{pool / f'{empty[0]}.jsonl'}: no question in it; its pictures show none of {categories}")
    out.mkdir(parents=True)
    manifest: dict = {"k": k, "seed": seed, "num_categories": len(chosen)}
    for split, questions in splits.items():
        write_jsonl(out / f"{split}.jsonl", questions)
        pictures = len({q.record_id for q in questions})
        manifest[split] = {"num_questions": len(questions), "num_pictures": pictures, "sha256": digest(questions)}
    manifest["chosen"] = {category: [r.id for r in members] for category, members in chosen.items()}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def whole(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--k", type=whole(1), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    settings = parser.add_argument_group("in the place of params.yaml's slice, which is read where there is one")
    settings.add_argument("--num-absent", type=whole(0), help="questions a picture gets about what it does not show")
    settings.add_argument("--allow-fewer", action=argparse.BooleanOptionalAction, help="take what there is below k")
    settings.add_argument("--categories", nargs="+", help="the base categories, all that train and val ask")
    return parser


def main() -> None:
    args = _parser().parse_args()
    given = {name: value for name in Slice.model_fields if (value := getattr(args, name)) is not None}
    try:
        params = load_params().slice if Path("params.yaml").is_file() else Slice()
        manifest = make_slice(params.model_copy(update=given), args.pool, args.k, args.seed, args.out)
    except (DataError, ParamsError) as error:
        sys.exit(f"slice: {error}")
    print(json.dumps(manifest, ensure_ascii=False))


if __name__ == "__main__":
    main()
