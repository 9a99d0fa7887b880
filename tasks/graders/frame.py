"""The frame that every answer stands in, whatever its task: `<think>...</think><answer>...</answer>`, or, of a prompt
that asks for no thinking (`prompt.thinking: false`), `<answer>...</answer>`.

A completion is untrusted text. It is capped in length before anything is built from it, the regular expressions are
linear, and nothing is evaluated.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_CHARACTERS = 65_536
TAG = re.compile(r"</?(?:think|answer)>")
THOUGHT, ANSWER = ["<think>", "</think>"], ["<answer>", "</answer>"]


class Failure(StrEnum):
    """Why an answer lost its reward or a part of it. Up to EMPTY_ANSWER they are the parser's: no reward at all."""

    TOO_LONG = "too_long"
    NOT_ASKED = "not_asked"  # an object whose category the base model did not see (grade.existence: model)
    NO_ANSWER = "no_answer"
    UNCLOSED_ANSWER = "unclosed_answer"  # mostly: the completion ran into its token limit
    SEVERAL_ANSWERS = "several_answers"
    NESTED_TAGS = "nested_tags"
    TOO_MANY_BOXES = "too_many_boxes"
    BAD_LIST = "bad_list"
    MISSING_KEY = "missing_key"
    BAD_BOX = "bad_box"  # not four numbers and nothing else, not finite, outside 0..1000, reversed or empty
    BAD_CONFIDENCE = "bad_confidence"  # not a number in 0..1
    NO_BOX = "no_box"  # grounding: none where one is demanded
    SEVERAL_BOXES = "several_boxes"  # grounding: more than the one demanded
    BAD_NUMBER = "bad_number"  # maths: no number, several, or not finite
    BAD_CHOICE = "bad_choice"  # maths: not one letter where one is asked for
    BAD_PROGRAM = "bad_program"  # does not compile, has no `solution`, raised, or was refused a file, a socket, ...
    PROGRAM_LIMIT = "program_limit"  # ran out of time, memory, disk or output
    BAD_RESULT = "bad_result"  # the program returned nothing, or no finite number (letter, where one is asked for)
    TOO_MANY_NAMES = "too_many_names"  # ranking
    EMPTY_ANSWER = "empty_answer"  # no label, number, program or name
    # The answer could be read, and is wrong:
    HALLUCINATED = "hallucinated"  # boxes where there is nothing
    OMITTED = "omitted"  # 'No Objects' where there are some
    NO_MATCH = "no_match"  # no box overlaps a gold box enough
    WRONG_LABEL = "wrong_label"
    WRONG_ANSWER = "wrong_answer"  # a number or a letter, and not the right one
    WRONG_STEP = "wrong_step"  # the right one, after an equation that does not hold
    NOT_RANKED = "not_ranked"  # the right name is not in the list
    OVER_LENGTH = "over_length"  # right or partly right, but so long that the length reward is 0
    BAD_FORMAT = "bad_format"  # right or partly right, but not in the form asked for


class Malformed(ValueError):
    """Carries the failure code out of the nested checks of an answer; the parsers turn it into a result."""

    def __init__(self, failure: Failure):
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True)
class Framed:
    """The stripped text of the single answer. `whole`: the text is what was asked for, one think block (or none), then
    one answer block, no more.
    """

    content: str
    whole: bool


def unframe(completion: str, thinking: bool = True) -> Framed:
    """The answer of a completion; any other text counts for nothing. `Malformed` says what is wrong with the frame."""
    if len(completion) > MAX_CHARACTERS:
        raise Malformed(Failure.TOO_LONG)
    found = list(TAG.finditer(completion))
    tags = [match.group() for match in found]
    start = _single_answer(tags)
    content = completion[found[start].end() : found[start + 1].start()].strip()
    if tags != THOUGHT * thinking + ANSWER:
        return Framed(content, False)
    edges = [0, *(edge for match in found for edge in match.span()), len(completion)]
    outside = (completion[edges[n] : edges[n + 1]] for n in range(0, len(edges), 4))
    return Framed(content, not any(text.strip() for text in outside))


def frame(content: str, think: str | None) -> str:
    """The inverse: what a model is taught to write; None for no thinking."""
    thought = "" if think is None else f"<think>{think}</think>"
    return f"{thought}<answer>{content}</answer>"


def _single_answer(tags: list[str]) -> int:
    """The place of `<answer>` among the tags, when it is the only one, outside the thinking and closed at once."""
    opened, closed = tags.count("<answer>"), tags.count("</answer>")
    if opened == 0:
        raise Malformed(Failure.NO_ANSWER)
    start = tags.index("<answer>")
    if "</answer>" not in tags[start:]:
        raise Malformed(Failure.UNCLOSED_ANSWER)
    thinks = max((i for i, tag in enumerate(tags[:start]) if tag == "<think>"), default=-1)
    within_think = thinks >= 0 and "</think>" not in tags[thinks:start] and "</think>" in tags[start:]
    if tags[start + 1] != "</answer>" or within_think:
        raise Malformed(Failure.NESTED_TAGS)
    if opened > 1 or closed > 1:
        raise Malformed(Failure.SEVERAL_ANSWERS)
    return start
