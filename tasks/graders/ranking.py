"""Answers that are an ordered list of names, the likeliest first, scored by the rank of the right one.

    <think>cough: ARX BDN CLK</think><answer>ARX, BDN, CLK, DMX, EPO</answer>

The scale is that of the rare-disease task of OpenAI's RFT announcement (first 1.0, second 0.7; the rest of the map is
not published). A name that stands twice counts once, at its first place; a list longer than allowed earns nothing. A
name may hold a comma or a semicolon ('T-cell lymphoma, adult'): the right one, and those with aliases, are known and
taken as a whole.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.graders.frame import Failure, Malformed, unframe
from tasks.graders.labels import MAX_NAME, canonical

SEPARATOR = re.compile(r"[,;\n]")
NUMBERED = re.compile(r"\s*[0-9]{1,3}[.)]\s+")  # '1. ARX'


Parts = tuple[str, ...]  # of a text, between its separators, in canonical form


@dataclass(frozen=True)
class ParsedRanking:
    """The names in their order, each once, in canonical form or that of the label they are aliases of; `stated` is the
    text. With a `failure` there are none.
    """

    names: tuple[str, ...] = ()
    stated: str | None = None
    failure: Failure | None = None
    well_formed: bool = False


def parts_of(text: str) -> Parts:
    parts = (canonical(NUMBERED.sub("", part, count=1)) for part in SEPARATOR.split(text))
    return tuple(part for part in parts if part)


def known_names(aliases: Mapping[str, str]) -> dict[Parts, str]:
    """{parts: the label} of an `alias_table`."""
    return {parts_of(alias): ", ".join(parts_of(label)) for alias, label in aliases.items()}


def right_name(gold: str, known: Mapping[Parts, str]) -> str:
    """The one name that a gold answer is, as `parse_ranking` writes it; ValueError where it is none."""
    if not (parts := parts_of(gold)):
        raise ValueError(f"the gold name is {gold[:80]!r}; give a name with a letter or a digit in it")
    return known.get(parts, ", ".join(parts))


def parse_ranking(completion: str, max_names: int, known: Mapping[Parts, str]) -> ParsedRanking:
    """The ranking inside the single `<answer>`; `known` holds the names that may have a separator in them. Never raises
    on a string.
    """
    try:
        framed = unframe(completion)
    except Malformed as error:
        return ParsedRanking(failure=error.failure)
    pieces, longest = SEPARATOR.split(framed.content), max(map(len, known), default=1)
    if len(framed.content) > MAX_NAME * max_names or max(map(len, pieces)) > MAX_NAME:
        return ParsedRanking(failure=Failure.TOO_LONG)
    names = _whole(parts_of(framed.content), known, longest) if len(pieces) <= max_names * longest else pieces
    if len(names) > max_names:  # before duplicates go: they take a place too
        return ParsedRanking(failure=Failure.TOO_MANY_NAMES)
    if not names:
        return ParsedRanking(failure=Failure.EMPTY_ANSWER)
    return ParsedRanking(tuple(dict.fromkeys(names)), framed.content, well_formed=framed.whole)


def _whole(parts: Parts, known: Mapping[Parts, str], longest: int) -> list[str]:
    """The names that the parts make: as many of them as the longest known name there takes (at most `longest`), or one
    by itself.
    """
    names, at = [], 0
    while at < len(parts):
        runs = (parts[at : at + num] for num in range(longest, 0, -1))
        run = next((run for run in runs if run in known), parts[at : at + 1])
        names.append(known.get(run, run[0]))
        at += len(run)
    return names


def rank_of(right: str, names: Sequence[str]) -> int | None:
    """The place of the right name, from 1; None where it is not among the names."""
    return names.index(right) + 1 if right in names else None


def rank_reward(rank: int | None, scores: Sequence[float], later: float) -> float:
    """scores[rank - 1], `later` beyond them, 0 for a name that is not there."""
    if rank is None:
        return 0.0
    return scores[rank - 1] if rank <= len(scores) else later
