"""A `dataset` section from command-line words, for `python -m tasks.prepare --source`."""

import argparse
import types
from typing import Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from tasks.params import ParamsError
from tasks.schema.base import Section
from tasks.schema.dataset import FileDataset


def _class_of(source: str) -> type[FileDataset]:
    return next(c for c in get_args(FileDataset) if get_args(c.model_fields["source"].annotation) == (source,))


def _types(annotation: object) -> list[object]:
    """The types of a field without None."""
    is_union = isinstance(annotation, types.UnionType) or get_origin(annotation) is Union
    return [t for t in get_args(annotation) if t is not types.NoneType] if is_union else [annotation]


def files_of(source: str) -> type[Section]:
    """The class of one split's paths."""
    return _types(_class_of(source).model_fields["train"].annotation)[0]


def _parser(source: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m tasks.prepare --source {source} --out POOL")
    for name, field in files_of(source).model_fields.items():
        literals = [get_args(t) for t in _types(field.annotation) if get_origin(t) is Literal]
        parser.add_argument(
            f"--{name.replace('_', '-')}", required=field.is_required(), default=field.default,
            choices=literals[0] if literals else None,
        )  # fmt: skip
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--num-val", type=int)
    parser.add_argument("--num-test", type=int)
    default = _class_of(source).model_fields["max_quarantined"].default
    parser.add_argument("--max-quarantined", type=float, default=default)
    return parser


def parse_dataset(source: str, words: list[str]) -> FileDataset:
    """One file's worth of data: the words are the fields of the source's files (--annotations F --images DIR), and of
    the data set (--categories, --num-val, --num-test, --max-quarantined). Val and test are held out of it by pixel
    hash. ParamsError names a value that is out of range.
    """
    given = vars(_parser(source).parse_args(words))
    train = {name: given.pop(name) for name in files_of(source).model_fields}
    try:
        return TypeAdapter(_class_of(source)).validate_python({"source": source, "train": train, **given})
    except ValidationError as error:
        lines = [f"--{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ParamsError("; ".join(lines)) from None
