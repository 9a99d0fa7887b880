"""What a model is asked about a record, and the chat messages that ask it."""

import hashlib
from collections.abc import Sequence

from tasks.data.records import Box, Question, Record, Shape
from tasks.params import Prompt


def rank(*parts: object) -> str:
    """A hash to sort by: the same on every machine, whatever the order of the file."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def together(keys: Sequence[str], num: int) -> int:
    """How many to hold out of a sorted list: `num`, or as many more as it takes not to part equal ones."""
    while 0 < num < len(keys) and keys[num] == keys[num - 1]:
        num += 1
    return num


def in_words(objects: Sequence[tuple[str, Box]]) -> str:
    """The objects in words from left to right, with corners in thousandths: 'two [134, 18], six [179, 384]'."""
    ordered = sorted(objects, key=lambda o: (o[1], o[0]))
    return ", ".join(f"{category} [{round(box[0])}, {round(box[1])}]" for category, box in ordered)


def describe(objects: Sequence[tuple[str, Box]], asked: str) -> str:
    """The scene, then what was asked for: 'two [134, 18], six [179, 384]; six [179, 384]'.

    This is the thinking of an SFT target; it ends in '; No six' where there is none.
    """
    return f"{in_words(objects)}; {in_words([o for o in objects if o[0] == asked]) or f'No {asked}'}"


def thousandths(record: Record, box: Box) -> Box:
    """A box in pixels of the record's picture, in thousandths of its sides."""
    x1, y1, x2, y2 = box
    return (
        1000 * x1 / record.width, 1000 * y1 / record.height, 1000 * x2 / record.width, 1000 * y2 / record.height
    )  # fmt: skip


def _in_thousandths(record: Record, mask: Sequence[Shape]) -> tuple[Shape, ...]:
    return tuple(
        Shape(tuple((1000 * x / record.width, 1000 * y / record.height) for x, y in shape.points), shape.ignore)
        for shape in mask
    )


def _objects(record: Record) -> list[tuple[str, Box]]:
    return [(o.category, thousandths(record, o.box)) for o in sorted(record.objects, key=lambda o: o.box)]


def question(record: Record, category: str) -> Question:
    """Detection: gold boxes in thousandths of the picture's sides, in reading order."""
    objects = _objects(record)
    boxes = tuple(box for name, box in objects if name == category)
    return Question(
        record.id, record.image, "detection", category, boxes, thoughts=(describe(objects, category),),
        ignore=tuple(thousandths(record, region.box) for region in record.ignore if region.category == category),
        exhaustive=category not in record.not_exhaustive,
    )  # fmt: skip


def other_questions(record: Record) -> list[Question]:
    """Classification, where the picture has a label, and grounding, a question an instruction; the problem."""
    thoughts, asked = (in_words(_objects(record)),), []
    if record.label is not None:
        asked.append(Question(record.id, record.image, "classification", "", label=record.label, thoughts=thoughts))
    for told in record.referring:
        own = {"boxes": (thousandths(record, told.box),), "mask": _in_thousandths(record, told.mask)}
        asked.append(Question(record.id, record.image, "grounding", told.instruction, thoughts=thoughts, **own))
    if given := record.problem:
        own = {"thoughts": given.chains or ("",), "turns": given.turns, "item": given.item, "others": given.others}
        asked.append(Question(record.id, None, given.task, given.text, label=given.answer or None, **own))
    return asked


def absent(record: Record, categories: Sequence[str], num: int) -> list[str]:
    """`num` categories that the picture is known not to show, chosen by its pixel hash. There is none for a record
    that is labelled for another task only.
    """
    if not record.objects and (record.label is not None or record.referring or record.problem):
        return []
    unsure = {*record.categories, *record.not_exhaustive, *(o.category for o in record.ignore)}
    known = set(record.negative) if record.federated else set(categories)
    missing = [c for c in categories if c in known - unsure]
    return sorted(missing, key=lambda c: rank("absent", record.pixel_hash, c))[:num]


def ask(records: Sequence[Record], categories: Sequence[str], num_absent: int) -> list[Question]:
    """For each picture, a detection question for every category that it shows and for `num_absent` that it does not,
    one about its class and one for each of its instructions.
    """
    return [
        q
        for r in records
        for q in (
            *(question(r, c) for c in (*r.categories, *absent(r, categories, num_absent))),
            *other_questions(r),
        )
    ]


def ask_all(records: Sequence[Record], categories: Sequence[str]) -> list[Question]:
    """`ask` for every category that AP counts: also for those of which a picture shows no object but a region to
    ignore, since a box elsewhere in it is wrong.
    """
    asked = []
    for record in records:
        regions = dict.fromkeys(region.category for region in record.ignore if region.category in categories)
        unsure = {*record.categories, *record.not_exhaustive}
        asked += [question(record, category) for category in regions if category not in unsure]
        asked += ask([record], categories, len(categories))
    return asked


def fill(prompt: Prompt, question: Question) -> str:
    """The prompt of the question's task with {asked} replaced; other braces are literal. ValueError without one."""
    template = getattr(prompt, question.task)
    if template is None:
        raise ValueError(f"no prompt for {question.task}; give prompt.{question.task}")
    return template.replace("{asked}", question.asked)


def conversation(prompt: Prompt, question: Question) -> list[dict]:
    """The messages of an imported job, its `developer` sent as `system`, which every chat template knows. What
    `prompt.job` says begins the system message: many templates take one alone, and first.
    """
    turns = [{**turn, "role": "system" if turn["role"] == "developer" else turn["role"]} for turn in question.turns]
    if prompt.job is None:
        return turns
    if turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{prompt.job}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": "system", "content": prompt.job}, *turns]


def messages(prompt: Prompt, question: Question) -> list[dict]:
    """The user turn: the picture, if there is one, then the prompt of the question's task. Or the question's turns."""
    if question.turns:
        return conversation(prompt, question)
    text = fill(prompt, question)
    if question.image is None:
        return [{"role": "user", "content": text}]
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
