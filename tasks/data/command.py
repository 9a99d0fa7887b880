"""A `dataset` section from command-line words, for `python -m tasks.prepare --source`."""

import argparse
import types
import typing

from pydantic import TypeAdapter, ValidationError

from tasks.params import ParamsError
from tasks.schema.dataset import FileDataset


def _class_of(source: str) -> type[FileDataset]:
    return next(
        c for c in typing.get_args(FileDataset) if typing.get_args(c.model_fields["source"].annotation) == (source,)
    )


def _names(annotation: object) -> list[object]:
    """The types of a field without None."""
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return [t for t in typing.get_args(annotation) if t is not types.NoneType] if is_union else [annotation]


def parse_dataset(source: str, words: list[str]) -> FileDataset:
    """One file's worth of data: the words are the fields of the source's files (--annotations F --images DIR), and of
    the data set (--categories, --num-val, --num-test, --max-quarantined). Val and test are held out of it by pixel
    hash.
    """
    dataset = _class_of(source)
    files = _names(dataset.model_fields["train"].annotation)[0]
    parser = argparse.ArgumentParser(prog=f"python -m tasks.prepare --source {source} --out POOL")
    for name, field in files.model_fields.items():
        choices = next(
            (typing.get_args(t) for t in _names(field.annotation) if typing.get_origin(t) is typing.Literal), None
        )
        parser.add_argument(
            f"--{name.replace('_', '-')}", required=field.is_required(), default=field.default, choices=choices
        )
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--num-val", type=int)
    parser.add_argument("--num-test", type=int)
    parser.add_argument("--max-quarantined", type=float, default=dataset.model_fields["max_quarantined"].default)
    given = vars(parser.parse_args(words))
    train = {name: given.pop(name) for name in files.model_fields}
    try:
        return TypeAdapter(dataset).validate_python({"source": source, "train": train, **given})
    except ValidationError as error:
        lines = [f"--{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ParamsError("; ".join(lines)) from None
