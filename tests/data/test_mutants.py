"""Broken data: of every mutated file, in = used + quarantined, or one DataError that names the file; never a crash, and
bounded time and memory. A small number runs each time, the full numbers of the reliability table with `make test-all`.
"""

import json
import random
import string
import time
from pathlib import Path

import pytest
from PIL import Image

from tasks.data.ingest import ingest
from tasks.data.pictures import look
from tasks.data.records import DataError, write_jsonl
from tasks.data.sources import READERS
from tasks.schema.dataset import CocoFiles, JsonlFiles

SECONDS, MEGABYTES = 5, 1024
VALUES = (
    None, True, 0, -1, 10**30, 1e308, float("nan"), float("inf"), "", "cat", "../x", "/etc/passwd", "\0", "\ud800",
    "cafe\u0301", [], {}, [[]], [1, 2], [1, 2, 3, 4], ["a"] * 4, {"id": 1}, "x" * 5000,
)  # fmt: skip


def amounts(fast, full):
    return [pytest.param(fast, id="fast"), pytest.param(full, id="full", marks=pytest.mark.slow)]


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for n in range(6):
        Image.new("RGB", (20, 10), (40 * n, 0, 0)).save(tmp_path / "images" / f"{n}.png")
    return tmp_path / "images"


def coco_value():
    annotations = [
        {"id": n, "image_id": n % 6, "category_id": n % 2, "bbox": [n % 5, 1, 5, 4], "area": 20, "iscrowd": 0}
        for n in range(18)
    ]
    rows = [{"id": n, "file_name": f"{n}.png", "width": 20, "height": 10} for n in range(6)]
    return {"images": rows, "annotations": annotations, "categories": [{"id": n, "name": f"c{n}"} for n in range(2)]}


def jsonl_value():
    box = [1, 1, 9, 9]
    return [
        {"image": f"{n}.png", "objects": [{"category": "cat", "box": box}], "label": "room", "size": [20, 10],
         "referring": [{"instruction": "it", "box": box}], "negative": ["dog"], "unit": "pixels"}
        for n in range(6)
    ]  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value, as the keys that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutate_value(value, rng):
    """Replace, delete, double or rename at one to three random places."""
    for _ in range(rng.randint(1, 3)):
        spots = list(places(value))
        if not spots:
            return
        *path, last = rng.choice(spots)
        holder = value
        for key in path:
            holder = holder[key]
        kind = rng.choice(("replace", "replace", "delete", "double", "rename"))
        if kind == "replace":
            holder[last] = rng.choice(VALUES)
        elif kind == "delete":
            del holder[last]
        elif kind == "double" and isinstance(holder, list):
            holder.append(holder[last])
        elif kind == "rename" and isinstance(holder, dict):
            holder["".join(rng.choices(string.ascii_lowercase, k=4))] = holder.pop(last)


def mutate_bytes(raw, rng):
    """Cut, overwrite, insert, double or swap a stretch."""
    start, length = rng.randrange(len(raw)), rng.choice((1, 1, 2, 8, 64))
    kind = rng.choice(("cut", "tail", "noise", "insert", "double", "swap"))
    if kind == "cut":
        return raw[:start] + raw[start + length :]
    if kind == "tail":
        return raw[:start]
    if kind == "noise":
        return raw[:start] + rng.randbytes(length) + raw[start + length :]
    if kind == "insert":
        return (
            raw[:start] + rng.choice((b"\xef\xbb\xbf", b"\0", b'"', b"[" * 2000, rng.randbytes(length))) + raw[start:]
        )
    if kind == "double":
        return raw[:start] + raw[start : start + length] * 2 + raw[start + length :]
    return raw[start:] + raw[:start]


def test_half_a_surrogate_pair_as_an_id_is_put_aside_and_written(images, tmp_path):
    value = coco_value()
    value["images"][0] |= {"id": "\ud800", "file_name": "none.png"}
    (tmp_path / "gt.json").write_text(json.dumps(value))
    assert account("coco", CocoFiles(annotations=str(tmp_path / "gt.json"), images=str(images)), tmp_path, "gt.json")
    written = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert "\ud800" in {row["item"] for row in written}


def memory(field):
    """Megabytes of this process: `VmRSS` what it holds, `VmHWM` the most since the peak was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def bounded(attempt):
    """`attempt()`, which took at most SECONDS and never MEGABYTES more than there were: the peak is its own, not one
    that an earlier test left behind.
    """
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    began, before = time.perf_counter(), memory("VmRSS")
    try:
        return attempt()
    finally:
        assert time.perf_counter() - began < SECONDS
        assert memory("VmHWM") - before < MEGABYTES


def test_the_bound_on_memory_can_fail_more_than_once():
    for _ in range(2):
        with pytest.raises(AssertionError):
            bounded(lambda: len(b"x" * ((MEGABYTES + 50) << 20)))


def account(source, files, tmp_path, name):
    """Ingest; True if it was used, False if refused as a whole. `Split.check` holds in = used + quarantined."""
    try:
        split = bounded(lambda: ingest(READERS[source](files, tmp_path), None, source))
    except DataError as error:
        assert name in str(error) or source in str(error)
        return False
    used = sum(sum(p.items.values()) for p in split.pictures)
    assert used + len(split.aside) == sum(split.read.values())
    assert all(q.file and q.kind and q.reason and len(q.reason) < 2000 for q in split.aside)
    write_jsonl(tmp_path / "aside.jsonl", split.aside)  # also with names that are no valid Unicode
    write_jsonl(tmp_path / "records.jsonl", [p.record for p in split.pictures])
    return True


def mutants_used(source, files, path, value_of, encode, num):
    """How many of `num` mutants are used: two of three are mutated as values, the others as bytes."""
    used = 0
    for seed in range(num):
        rng, value = random.Random(seed), value_of()
        if seed % 3:
            mutate_value(value, rng)
        raw = encode(value).encode()
        path.write_bytes(raw if seed % 3 else mutate_bytes(raw, rng))
        used += account(source, files, path.parent, path.name)
    return used


@pytest.mark.parametrize("num", amounts(60, 500))
def test_mutated_coco_files(images, tmp_path, num):
    path = tmp_path / "gt.json"
    files = CocoFiles(annotations=str(path), images=str(images))
    assert num / 4 < mutants_used("coco", files, path, coco_value, json.dumps, num) < num  # both outcomes are common


@pytest.mark.parametrize("num", amounts(60, 500))
def test_mutated_jsonl_files(images, tmp_path, num):
    path = tmp_path / "rows.jsonl"
    files = JsonlFiles(rows=str(path), images=str(images))

    def lines(rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    assert mutants_used("jsonl", files, path, jsonl_value, lines, num) > 0.9 * num


@pytest.mark.parametrize("num", amounts(40, 200))
def test_mutated_pictures(tmp_path, num):
    noise = random.Random(0).randbytes(64 * 48 * 3)
    picture = Image.frombytes("RGB", (64, 48), noise)
    outcomes = []
    for seed in range(num):
        rng = random.Random(seed)
        form = ("JPEG", "PNG", "WEBP")[seed % 3]
        exif = Image.Exif()
        exif[0x0112] = 1 + seed % 8
        picture.save(tmp_path / "x", form, exif=exif)
        (tmp_path / "x").write_bytes(mutate_bytes((tmp_path / "x").read_bytes(), rng))
        try:
            outcomes.append(bounded(lambda: look(tmp_path, "x")).width in (48, 64))
        except ValueError as error:
            assert str(error)
            outcomes.append(False)
    assert 0 < sum(outcomes) < num


def test_a_huge_plain_picture_stays_below_a_gigabyte(tmp_path):
    """Just below the cap, transparent: the most memory that one picture may take."""
    Image.new("RGBA", (7_000, 7_000), (1, 2, 3, 100)).save(tmp_path / "x.png", compress_level=1)
    assert bounded(lambda: look(tmp_path, "x.png")).width == 7_000
