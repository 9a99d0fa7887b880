"""Stage `slice`: a pool becomes a k-shot slice. `python -m tasks.slice --pool data/pool --k 4 --seed 0 --out
data/slice/4-0`

train.jsonl and val.jsonl hold `Question` rows; manifest.json counts and hashes them. For every category the k
pictures that come first by hash(seed, category, pixels) are taken, so that k = 1 is in k = 2 is in k = 4, on any
machine and in any file order. Each chosen picture is asked for every
category that it shows and `slice.num_absent` that it does not.
"""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from tasks.data.coco import DataError
from tasks.data.questions import ask, rank
from tasks.data.records import Question, Record, read_records, write_jsonl
from tasks.params import Slice, load_params


def choose(
    records: list[Record], categories: list[str], k: int, seed: int, allow_fewer: bool
) -> dict[str, list[Record]]:
    """k pictures for each category; nested in k. DataError with have and need where there are fewer."""
    chosen, short = {}, []
    for category in categories:
        having = sorted(
            (r for r in records if category in r.categories), key=lambda r: rank(seed, category, r.pixel_hash)
        )
        if len(having) < k:
            short.append(f"{category}: have {len(having)}, need {k}")
        chosen[category] = having[:k]
    if short and not allow_fewer:
        raise DataError(
            f"too few pictures for k = {k} ({'; '.join(short)}): lower grid.k or set slice.allow_fewer=true"
        )
    return chosen


def train_questions(chosen: dict[str, list[Record]], categories: list[str], num_absent: int) -> list[Question]:
    """Each chosen picture once, asked for every category that it shows: SFT's thinking names them all, so RFT must be
    rewarded for them all too.
    """
    pictures = {r.id: r for members in chosen.values() for r in members}
    return ask(list(pictures.values()), categories, num_absent)


def digest(questions: list[Question]) -> str:
    return hashlib.sha256("\n".join(sorted(json.dumps(asdict(q)) for q in questions)).encode()).hexdigest()


def make_slice(params: Slice, pool: Path, k: int, seed: int, out: Path) -> dict:
    """Write the slice to `out`; returns its manifest."""
    categories = json.loads((pool / "categories.json").read_text())
    train = read_records(pool / "train.jsonl")
    chosen = choose(train, categories, k, seed, params.allow_fewer)
    splits = {
        "train": train_questions(chosen, categories, params.num_absent),
        "val": ask(read_records(pool / "val.jsonl"), categories, params.num_absent),
    }
    out.mkdir(parents=True)
    manifest: dict = {"k": k, "seed": seed, "num_categories": len(categories)}
    for split, questions in splits.items():
        write_jsonl(out / f"{split}.jsonl", questions)
        pictures = len({q.record_id for q in questions})
        manifest[split] = {"num_questions": len(questions), "num_pictures": pictures, "sha256": digest(questions)}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(make_slice(load_params().slice, args.pool, args.k, args.seed, args.out)))


if __name__ == "__main__":
    main()
