"""JSON from models and judges, read strictly, and values as text."""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 64  # of lists and objects inside each other, so that whoever writes the value again can


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict:
    """An object_pairs_hook for what people write: ValueError for a key that is given twice, of which JSON keeps one."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice; remove one")
    return value


def parse_json(text: str, to_object: Callable[[list[tuple[str, Any]]], dict] = refuse_duplicates) -> Any:
    """The JSON value of a text. Raises ValueError for anything else: NaN, 1e999 and deep nesting included, and a key
    given twice, of which `dict` for `to_object` takes the last (what models write).
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite_float, object_pairs_hook=to_object)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def as_text(value: Any) -> str:
    """What a template inserts: a string as it is, all else as JSON with sorted keys, so that key order is no matter."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def finite(value: Any) -> float | None:
    """A number or a bool as a finite float; None for all else, NaN and too large integers included."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _inside(value: Any) -> Iterable:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number
