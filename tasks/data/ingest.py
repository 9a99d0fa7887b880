"""From drafts to records, for every source alike: names, boxes and pictures are checked here, and nothing gets lost.

An item is a picture or a labelled region: each is used, quarantined with its reason, or left out because its category
was not asked for. Faults of one item quarantine it; what would change other items' meaning raises DataError.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.data.drafts import Draft, Form, Quarantined, Reading, Region, short, text_fault
from tasks.data.numbers import parse_number
from tasks.data.pictures import Look, look_at_all
from tasks.data.records import Box, DataError, Object, Problem, Record, Referring, Shape, json_hash, text_hash

LETTER = re.compile(r"[A-Za-z]")
TAG = re.compile(r"</?(?:think|answer)>")  # those of the frame that answers stand in


@dataclass(frozen=True)
class Picture:
    """A record with the file of its pixels, of a problem with its file and item, before it is copied into a pool.
    `num_rows` of its file describe it. One that `shows` no chosen category is there for the test's false alarms only.
    """

    record: Record
    source: Path
    look: Look
    num_rows: int = 1
    shows: bool = True

    @property
    def what(self) -> str:
        """What of it may stand in one split only."""
        if self.record.problem is None:
            return "pixels"
        return "messages" if self.record.problem.task == "job" else "words"

    @property
    def shown(self) -> str:
        """Hash of `what` a model is shown. Rows of a job may share it: the same messages with another item."""
        job = self.what == "messages"
        return json_hash(self.record.problem.turns) if job else self.record.pixel_hash

    @property
    def items(self) -> Counter:
        """How many items of each kind it is made of."""
        record = self.record
        kind = "image" if record.problem is None else "problem"
        return Counter({kind: self.num_rows, "annotation": len(record.objects + record.ignore + record.referring)})


@dataclass
class Split:
    """A reading after the checks: `read` = those of `pictures` + `aside` + `left_out`, for each kind of item."""

    pictures: list[Picture] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    read: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    frequency: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)  # every category and class of the file, asked for or not

    def check(self) -> None:
        used = sum((p.items for p in self.pictures), Counter())
        aside = Counter(q.kind for q in self.aside)
        assert used + aside + self.left_out == self.read, f"{used} + {aside} + {self.left_out} is not {self.read}"


def _is_number(value: object) -> bool:
    """A finite number that no arithmetic on boxes can make infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def corners(box: object, form: Form, scale: tuple[float, float]) -> Box | str:
    """x1, y1, x2, y2 in pixels, or the reason why there are none. `scale`: pixels of one unit in x and in y."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox is not four numbers: {short(box)}"
    a, b, c, d = box
    if form == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if not (a < c and b < d):
        return f"box without area: {short(box)}"
    return (float(a * scale[0]), float(b * scale[1]), float(c * scale[0]), float(d * scale[1]))


def place(region: Region, draft: Draft, look: Look) -> Box | str:
    """The region's box in pixels, clipped to the picture, or the reason why there is none."""
    scale = (look.width / draft.side, look.height / draft.side) if draft.side else (1.0, 1.0)
    box = corners(region.box, draft.form, scale)
    if isinstance(box, str):
        return box
    x1, y1, x2, y2 = box
    clipped = (max(0.0, x1), max(0.0, y1), min(float(look.width), x2), min(float(look.height), y2))
    if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        return f"box outside the picture: {short(region.box)} in {look.width}x{look.height}"
    return clipped


def outlines(region: Region, draft: Draft, look: Look) -> tuple[Shape, ...] | str:
    """The region's polygons in pixels, clipped to the picture, or the reason why they cannot be used. Less than three
    points have no inside: they are left out.
    """
    shapes, size = [], (look.width, look.height)
    for points, ignore in region.mask:
        if not isinstance(points, list) or not all(map(_is_point, points)):
            return f"polygon is not a list of points: {short(points)}"
        if len(points) > 2:
            unit = [side / draft.side for side in size] if draft.side else (1.0, 1.0)
            clip = [[min(max(v * u, 0.0), side) for v, u, side in zip(p, unit, size, strict=True)] for p in points]
            shapes.append(Shape(tuple((float(x), float(y)) for x, y in clip), ignore))
    return tuple(shapes)


def _is_point(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def nfc(name: str) -> str:
    """The form that names are compared and stored in: the same letters have the same code points."""
    return unicodedata.normalize("NFC", name)


def _names(drafts: Iterable[Draft]) -> set[str]:
    texts = [r.name for d in drafts for r in (*d.objects, *d.ignore)]
    texts += [name for d in drafts for name in (d.label, *d.negative, *d.not_exhaustive)]
    return {name for name in texts if isinstance(name, str)}


def renames(drafts: Iterable[Draft], where: str) -> dict[str, str]:
    """Stored name -> the name in the file, where they differ. DataError if two names of the file become one."""
    originals: dict[str, str] = {}
    for name in sorted(_names(drafts)):
        other = originals.setdefault(nfc(name), name)
        if other != name:
            raise DataError(
                f"{where}: categories {other!r} and {name!r} look the same (their Unicode normal form is): rename one"
            )
    return {stored: name for stored, name in originals.items() if stored != name}


def select(draft: Draft, wanted: Collection[str]) -> Draft:
    """The draft with the wanted categories only."""

    def of(regions: tuple[Region, ...], name: Callable[[Region], object]) -> tuple[Region, ...]:
        return tuple(r for r in regions if isinstance(name(r), str) and nfc(name(r)) in wanted)

    return replace(
        draft,
        objects=of(draft.objects, lambda r: r.name),
        referring=of(draft.referring, lambda r: r.category),
        ignore=of(draft.ignore, lambda r: r.name),
        label=draft.label if isinstance(draft.label, str) and nfc(draft.label) in wanted else None,
        negative=tuple(name for name in draft.negative if nfc(name) in wanted),
        not_exhaustive=tuple(name for name in draft.not_exhaustive if nfc(name) in wanted),
    )


def shows(kept: Draft, wanted: Collection[str]) -> bool:
    """Whether a selected draft is an example of a wanted category, class or kind."""
    is_kind = kept.problem is not None and kept.problem.category in wanted
    return bool(kept.objects or kept.referring or kept.label is not None or is_kind)


def tells_absence(draft: Draft, kept: Draft) -> bool:
    """Whether a draft without a wanted object says where a box of one is wrong, so that AP counts false alarms there:
    a picture labelled for detection; a federated one (LVIS) only where it names a wanted category as absent.
    """
    if not draft.objects and (draft.label is not None or draft.referring or draft.problem):
        return False  # labelled for another task only
    return bool(kept.negative or kept.ignore) or not draft.federated


def _image_fault(draft: Draft, look: Look | str) -> str | None:
    if isinstance(look, str):
        return look
    if draft.label is not None and (fault := text_fault(draft.label)):
        return fault
    if draft.size and (look.width, look.height) != draft.size and all(type(side) is int for side in draft.size):
        claimed, seen = "x".join(map(str, draft.size)), f"{look.width}x{look.height}"
        return f"size is not that of the picture: {claimed} in the file, {seen} seen upright, so boxes would be wrong"
    return None


def _placed(
    regions: tuple[Region, ...], draft: Draft, look: Look
) -> tuple[list[tuple[Region, Box]], list[Quarantined], set[str]]:
    """Regions with their boxes, what is put aside, and the names of the latter."""
    good, aside, names = [], [], set()
    for region in regions:
        outline = outlines(region, draft, look)
        fault = text_fault(region.name) or (outline if isinstance(outline, str) else None)
        box = fault or place(region, draft, look)
        if isinstance(box, str):
            aside.append(Quarantined(draft.file, "annotation", region.item, box, region.line))
            names |= {nfc(region.name)} if isinstance(region.name, str) else set()
        else:
            good.append((region, box))
    return good, aside, names


def finish(draft: Draft, look: Look | str, root: Path) -> tuple[Picture | None, list[Quarantined]]:
    """The picture with its usable regions, and what of it is put aside (all of it where the picture cannot be used)."""
    if fault := _image_fault(draft, look):
        reason = f"its image is quarantined: {draft.item}"
        aside = [Quarantined(draft.file, "annotation", r.item, reason, r.line) for r in draft.regions]
        return None, [Quarantined(draft.file, draft.kind, draft.item, fault, draft.line), *aside]
    assert isinstance(look, Look)
    objects, no_objects, partial = _placed(draft.objects, draft, look)
    ignore, no_ignore, _ = _placed(draft.ignore, draft, look)
    referring, no_referring, _ = _placed(draft.referring, draft, look)
    aside = no_objects + no_ignore + no_referring
    if draft.referring and not (referring or draft.objects or ignore or draft.label):
        return None, [*aside, Quarantined(draft.file, "image", draft.item, "no usable instruction", draft.line)]
    record = Record(
        draft.item, None if draft.image is None else str(draft.image), look.width, look.height, look.pixel_hash,
        objects=tuple(Object(nfc(r.name), box) for r, box in objects),
        label=nfc(draft.label) if isinstance(draft.label, str) else None,
        referring=tuple(Referring(r.name, box, r.category, outlines(r, draft, look)) for r, box in referring),
        ignore=tuple(Object(nfc(r.name), box) for r, box in ignore),
        negative=tuple(sorted(map(nfc, draft.negative))),
        # with the categories of boxes that were put aside: the picture may well show them
        not_exhaustive=tuple(sorted(partial | set(map(nfc, draft.not_exhaustive)))),
        federated=draft.federated,
        problem=draft.problem,
    )  # fmt: skip
    source = root / str(draft.image) if draft.problem is None else Path(f"{draft.file}: {draft.item}")
    return Picture(record, source, look), aside


def _joined(first: Record, other: Record) -> tuple[Record, int]:
    """One record of two rows about the same picture, and how many regions stood in both."""
    objects = tuple(dict.fromkeys((*first.objects, *other.objects)))
    referring = tuple(dict.fromkeys((*first.referring, *other.referring)))
    twice = len(first.objects + other.objects + first.referring + other.referring) - len(objects + referring)
    negative = tuple(sorted({*first.negative, *other.negative}))
    not_exhaustive = tuple(sorted({*first.not_exhaustive, *other.not_exhaustive}))
    label = first.label or other.label
    return replace(first, objects=objects, referring=referring, label=label, negative=negative,
                   not_exhaustive=not_exhaustive), twice  # fmt: skip


def without_twins(split: Split, files: dict[str, Draft], by_pixels: bool) -> None:
    """One picture for equal pixels: rows about it are joined (`by_pixels`), any other twin is put aside. Which one is
    kept depends on what they show and on their names, not on their order.
    """
    kept: dict[str, Picture] = {}
    for picture in sorted(split.pictures, key=lambda p: (not p.shows, p.record.image or p.record.id)):
        key, draft = picture.record.pixel_hash, files[picture.record.id]
        if key not in kept:
            kept[key] = picture
            continue
        first, other = kept[key], picture.record
        labels = {first.record.label, other.label} - {None}
        if by_pixels and len(labels) < 2:
            record, twice = _joined(first.record, other)
            kept[key] = replace(first, record=record, num_rows=first.num_rows + 1)
            same = Quarantined(draft.file, "annotation", draft.item, "region stands twice: in another row", draft.line)
            split.aside += [same] * twice
            continue
        what = "messages and item" if first.what == "messages" else first.what
        reason = f"same {what} as another {draft.kind} of this split: {first.record.id}"
        split.aside.append(Quarantined(draft.file, draft.kind, draft.item, reason, draft.line))
        same = Quarantined(draft.file, "annotation", draft.item, f"its image is quarantined: {draft.item}", draft.line)
        split.aside += [same] * picture.items["annotation"]
    split.pictures = list(kept.values())


def _problem_fault(problem: Problem) -> str | None:
    """Why nobody could be graded against the answer, or taught a chain; None for a good problem."""
    if problem.task == "job":
        return None  # its reader has checked the turns, and nothing else is known of what is right
    if fault := text_fault(problem.answer, "answer"):
        return fault
    if problem.task != "ranking" and not (LETTER.fullmatch(problem.answer) or parse_number(problem.answer)):
        return f"answer is neither one number nor a letter: {short(problem.answer)}"
    for chain in problem.chains:
        if fault := text_fault(chain, "chain"):
            return fault
        if found := TAG.search(chain):
            return f"chain holds the tag {found.group()}: {short(chain)}"
    return None


def look_at_words(problem: Problem) -> Look | str:
    """What a picture's look is, for a problem: without sides, known by its words. A job's row is known by all of it,
    since case may be what is asked about, and its item is what it is graded with. Or why there is none.
    """
    if fault := text_fault(problem.text, "question") or _problem_fault(problem):
        return fault
    known_by = json_hash([problem.turns, problem.item]) if problem.task == "job" else text_hash(problem.text)
    return Look(0, 0, known_by, near_hash=0, as_is=True, suffix="")


def _chosen(
    drafts: Iterable[Draft], categories: Collection[str], left_out: Counter, with_absent: bool
) -> list[tuple[Draft, bool]]:
    """The drafts to use, each with whether it shows a category; the others, and their regions, are counted."""
    wanted, chosen = set(map(nfc, categories)), []
    for draft in drafts:
        kept = select(draft, wanted)
        shown = shows(kept, wanted)
        used = shown or (with_absent and tells_absence(draft, kept))
        chosen += [(kept, shown)] * used
        regions = len(draft.regions) - len(kept.regions) * used
        left_out.update({draft.kind: int(not used), "annotation": regions})
    return chosen


def ingest(reading: Reading, categories: Collection[str] | None, title: str, with_absent: bool = False) -> Split:
    """Check and decode a reading. With `categories`, the pictures that show none of them are not even decoded, but for
    those of a test (`with_absent`) that are known not to show them: a box there is a false alarm.
    """
    split = Split(read=reading.read, aside=list(reading.aside), renamed=renames(reading.drafts, title))
    split.frequency = {nfc(name): value for name, value in reading.frequency.items()}
    split.names, chosen = set(map(nfc, _names(reading.drafts))), [(draft, True) for draft in reading.drafts]
    if categories is not None:
        chosen = _chosen(reading.drafts, categories, split.left_out, with_absent)
    looks = iter(look_at_all(reading.root, [d.image for d, _ in chosen if not d.problem], title))
    for draft, shown in chosen:
        seen = look_at_words(draft.problem) if draft.problem else next(looks)
        picture, aside = finish(draft, seen, reading.root)
        split.aside += aside
        if picture:
            split.pictures.append(replace(picture, shows=shown))
    without_twins(split, {draft.item: draft for draft, _ in chosen}, reading.by_pixels)
    split.check()
    return split
