"""`calculate_output` of a multi grader: arithmetic over the grades, parsed here and never evaluated as code.

    sum: product (('+' | '-') product)*       unary: ('-' | '+') unary | power
    product: unary (('*' | '/') unary)*       power: atom ('^' unary)?
    atom: number | name | function '(' sum (',' sum)* ')' | '(' sum ')'

As in mathematics -2^2 is -4 and 2^3^2 is 2^9; `log` is the natural logarithm.
"""

import math
import operator
import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

MAX_CHARACTERS = 10_000
MAX_DEPTH = 50
TRIES = 10_000
TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([A-Za-z_]\w*)|([-+*/^(),]))", re.ASCII
)
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
VARIADIC = ("min", "max")
OPERATORS: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,  # of a negative base to a fraction it is a ValueError, where ** gives a complex number
    "negative": operator.neg,
}
Step = float | str | tuple[Callable[..., float], int]  # a constant, a grade's name, or a function of so many values


@dataclass(frozen=True)
class Formula:
    """`program` is in postfix order: evaluation needs a stack and no recursion."""

    program: tuple[Step, ...]

    def __call__(self, grades: Mapping[str, float]) -> float:
        """The finite value at these grades. Raises ArithmeticError or ValueError where it has none: 1 / 0, log(0)."""
        stack: list[float] = []
        for step in self.program:
            if isinstance(step, tuple):
                function, arity = step
                values = stack[-arity:]
                del stack[-arity:]
                stack.append(float(function(*values)))
            else:
                stack.append(grades[step] if isinstance(step, str) else step)
            if not math.isfinite(stack[-1]):  # at each step: min(overflow, 1) must not hide it
                raise OverflowError("math range error")
        (value,) = stack
        return value

    def ever(self, ranges: Mapping[str, tuple[float, float]]) -> bool:
        """Whether it has a value at any of TRIES random grades in these ranges, their ends among them."""
        draw = random.Random(0)
        for _ in range(TRIES):
            try:
                self({name: draw.choice((*ends, draw.uniform(*ends))) for name, ends in ranges.items()})
            except (ArithmeticError, ValueError):
                continue
            return True
        return False


def parse_formula(text: str, names: Collection[str]) -> Formula:
    """The formula of a `calculate_output` over graders of these names; ValueError says what is wrong and where."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a formula of {len(text)} characters; at most {MAX_CHARACTERS}")
    return Formula(tuple(_Parser(text, names).parse()))


class _Parser:
    """Recursive descent; emits postfix steps as it goes."""

    def __init__(self, text: str, names: Collection[str]):
        self.text, self.names = text, names
        self.place, self.depth = 0, 0
        self.steps: list[Step] = []

    def parse(self) -> list[Step]:
        self.sum()
        if self.place < len(self.text.rstrip()):
            self.fail("an operator")
        return self.steps

    def fail(self, wanted: str):
        found = self.text[self.place :].strip()[:20]
        raise ValueError(f"wanted {wanted} at character {self.place + 1}, found {found or 'the end'!r}")

    def take(self, *signs: str) -> str | None:
        """The next token if it is one of these signs."""
        found = TOKEN.match(self.text, self.place)
        if found and found[3] in signs:
            self.place = found.end()
            return found[3]
        return None

    def sum(self) -> None:
        self.chain(self.product, "+", "-")

    def product(self) -> None:
        self.chain(self.unary, "*", "/")

    def chain(self, part: Callable[[], None], *signs: str) -> None:
        part()
        while sign := self.take(*signs):
            part()
            self.steps.append((OPERATORS[sign], 2))

    def unary(self) -> None:
        self.depth += 1  # every recursion comes through here
        if self.depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if sign := self.take("-", "+"):
            self.unary()
            if sign == "-":
                self.steps.append((OPERATORS["negative"], 1))
        else:
            self.atom()
            if self.take("^"):
                self.unary()
                self.steps.append((OPERATORS["^"], 2))
        self.depth -= 1

    def atom(self) -> None:
        found = TOKEN.match(self.text, self.place)
        if not found or (found[3] and found[3] != "("):
            self.fail("a number, a grader, a function or (")
        self.place = found.end()
        if found[1]:
            self.number(found[1])
        elif found[2]:
            self.name(found[2])
        else:
            self.sum()
            if not self.take(")"):
                self.fail(")")

    def number(self, digits: str) -> None:
        if not math.isfinite(float(digits)):
            raise ValueError(f"{digits} is too large")
        self.steps.append(float(digits))

    def name(self, name: str) -> None:
        if self.take("("):
            return self.call(name)
        if name not in self.names:
            raise ValueError(f"unknown name {name!r}; the graders are {', '.join(self.names)}")
        self.steps.append(name)

    def call(self, name: str) -> None:
        if name not in FUNCTIONS:
            raise ValueError(f"unknown function {name!r}; there are {', '.join(FUNCTIONS)}")
        self.sum()
        arity = 1
        while self.take(","):
            self.sum()
            arity += 1
        if not self.take(")"):
            self.fail(") or ,")
        if arity > 1 and name not in VARIADIC:
            raise ValueError(f"{name} takes one value, not {arity}")
        self.steps.append((FUNCTIONS[name] if name not in VARIADIC else _over(FUNCTIONS[name]), arity))


def _over(function: Callable) -> Callable[..., float]:
    """min and max of one value too: Python's own take a single argument for a sequence."""
    return lambda *values: function(values)
