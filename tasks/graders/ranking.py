"""Answers that are an ordered list of names, the likeliest first, scored by the rank of the right one.

    <think>cough: ARX BDN CLK</think><answer>ARX, BDN, CLK, DMX, EPO</answer>

The scale is that of the rare-disease task of OpenAI's RFT announcement (first 1.0, second 0.7; the rest of the map is
not published). A name that stands twice counts once, at its first place; a list longer than allowed earns nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.graders.frame import Failure, Malformed, unframe
from tasks.graders.labels import canonical

SEPARATOR = re.compile(r"[,;\n]")
NUMBERED = re.compile(r"\s*[0-9]{1,3}[.)]\s+")  # '1. ARX'


@dataclass(frozen=True)
class ParsedRanking:
    """The names in their order, each once, in canonical form or that of the label they are aliases of; `stated` is the
    text. With a `failure` there are none.
    """

    names: tuple[str, ...] = ()
    stated: str | None = None
    failure: Failure | None = None
    well_formed: bool = False


def names_of(text: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """The names of a list in words, each once; `aliases` is an `alias_table`."""
    names = (canonical(NUMBERED.sub("", part, count=1)) for part in SEPARATOR.split(text))
    return tuple(dict.fromkeys(aliases.get(name, name) for name in names if name))


def parse_ranking(completion: str, max_names: int, aliases: Mapping[str, str]) -> ParsedRanking:
    """The ranking inside the single `<answer>`. Never raises on a string."""
    try:
        framed = unframe(completion)
    except Malformed as error:
        return ParsedRanking(failure=error.failure)
    if len(SEPARATOR.findall(framed.content)) >= max_names:  # before duplicates go: they take a place too
        return ParsedRanking(failure=Failure.TOO_MANY_NAMES)
    names = names_of(framed.content, aliases)
    if not names:
        return ParsedRanking(failure=Failure.EMPTY_ANSWER)
    return ParsedRanking(names, framed.content, well_formed=framed.whole)


def rank_of(gold: str, names: Sequence[str], aliases: Mapping[str, str]) -> int | None:
    """The place of the right name, from 1; None where it is not among the names. A gold answer may go on with other
    names, which SFT is taught to state after it.
    """
    right, *_ = names_of(gold, aliases)
    return names.index(right) + 1 if right in names else None


def rank_reward(rank: int | None, scores: Sequence[float], later: float) -> float:
    """scores[rank - 1], `later` beyond them, 0 for a name that is not there."""
    if rank is None:
        return 0.0
    return scores[rank - 1] if rank <= len(scores) else later
