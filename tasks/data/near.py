"""Pictures of one split that look like one of another, by perceptual hash (imagehash's phash: 64 bits of the DCT).

Resized, re-encoded or slightly edited copies differ in a few bits. Train and test are compared in blocks, so that
100,000 x 5,000 pictures take seconds and little memory.
"""

from itertools import combinations

import numpy as np

from tasks.data.ingest import Picture

MAX_BITS = 4  # of 64: copies are at 0-4 (resized, JPEG quality 40), different photographs at 20 and more
BLOCK = 4096
FLAT_BITS = 8  # a hash with fewer ones or zeros is that of a picture without structure, which is like every other such


def _structured(pictures: list[Picture]) -> list[Picture]:
    return [p for p in pictures if p.record.image and FLAT_BITS <= p.look.near_hash.bit_count() <= 64 - FLAT_BITS]


def _hashes(pictures: list[Picture]) -> np.ndarray:
    return np.array([p.look.near_hash for p in pictures], dtype=np.uint64)


def near_duplicates(splits: dict[str, list[Picture]]) -> list[dict]:
    """For each picture of a later split, the most alike of each earlier one within MAX_BITS: names in their data
    files, and the number of bits.
    """
    structured = {name: _structured(pictures) for name, pictures in splits.items()}
    found = []
    for (name, ours), (other, theirs) in combinations(structured.items(), 2):
        first, second = _hashes(ours), _hashes(theirs)
        if not len(first):
            continue
        for start in range(0, len(second), BLOCK):
            least, where = _closest(second[start : start + BLOCK], first)
            for n in np.flatnonzero(least <= MAX_BITS):
                pair = {name: ours[where[n]].record.image, other: theirs[start + n].record.image}
                found.append({**pair, "bits": int(least[n])})
    return found


def _closest(queries: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each query, the least number of differing bits and the index where it is; both (len(queries),)."""
    least, where = np.full(len(queries), 65), np.zeros(len(queries), dtype=int)
    for start in range(0, len(among), BLOCK):
        bits = np.bitwise_count(queries[:, None] ^ among[None, start : start + BLOCK])  # (queries, block)
        best = bits.argmin(axis=1)
        bits = bits[np.arange(len(queries)), best]
        where = np.where(bits < least, start + best, where)
        least = np.minimum(bits, least)
    return least, where
