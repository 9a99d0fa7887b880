"""The references of a response format: each leads to a schema within it, and none round in a circle."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, ObjectSchema, Schema

from tasks.graders.openai.schema import SpecError

REFERENCES = ("$ref", "$dynamicRef")
# What applies a schema to the value itself, not to a part of it.
SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")


def check_references(schema: ObjectSchema) -> None:
    """SpecError names a reference of this schema that cannot be followed. Nothing is asked of the network.

    Raises SchemaError for one to what is no schema.
    """
    known: dict[int, ObjectSchema] = {}
    applied: dict[int, list[int]] = {}  # which others a schema applies to the same value
    todo = [(Registry().resolver_with_root(DRAFT202012.create_resource(schema)), schema)]
    while todo:
        resolver, inner = todo.pop()
        if not isinstance(inner, dict) or id(inner) in known:
            continue
        found = [_follow(resolver, inner[key]) for key in REFERENCES if key in inner]
        known[id(inner)] = inner
        applied[id(inner)] = [id(other) for other in (*_same_value(inner), *(other for _, other in found))]
        below = [(DRAFT202012.create_resource(part), part) for part in DRAFT202012.subresources_of(inner)]
        todo += [*found, *((resolver.in_subresource(resource), part) for resource, part in below)]
    try:
        TopologicalSorter(applied).prepare()
    except CycleError as error:
        circle = [known[place] for place in error.args[1]]
        names = dict.fromkeys(repr(part[key]) for part in circle for key in REFERENCES if key in part)
        raise SpecError(f"response_format: the reference {', '.join(names)} leads to itself, without end") from None


def _follow(resolver: Any, reference: str) -> tuple[Any, Schema]:
    try:
        found = resolver.lookup(reference)
    except (Unresolvable, ValueError, TypeError):  # the last two: of a pointer into a text, a list or a number
        raise SpecError(
            f"response_format: the reference {reference!r} leads nowhere in the schema; put its target in $defs"
        ) from None
    Draft202012Validator.check_schema(found.contents)
    return found.resolver, found.contents


def _same_value(schema: ObjectSchema) -> Iterator[Schema]:
    for key in SAME_VALUE:
        part = schema.get(key)
        if key == "dependentSchemas":
            part = list((part or {}).values())
        yield from part if isinstance(part, list) else [part]
