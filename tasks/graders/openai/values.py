"""JSON from models and judges, read strictly, and values as text."""

import json
import math
from typing import Any


def parse_json(text: str) -> Any:
    """The JSON value of a text. Raises ValueError for anything else: NaN, 1e999 and endless nesting included."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None


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


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number
