"""What SFT teaches: the answers that the grader takes for gold."""

from tasks.data.records import Question
from tasks.graders.grounding import format_box
from tasks.graders.labels import format_label
from tasks.graders.maths import Form
from tasks.graders.maths import format_answer as format_maths
from tasks.graders.openai.failures import GradeError
from tasks.graders.openai.sample import Context
from tasks.graders.openai.templates import render
from tasks.graders.parse import format_answer
from tasks.graders.programs import format_program
from tasks.graders.units import THOUSANDTHS, Sides, corners


def _detection(question: Question, thought: str | None, sides: Sides) -> str:
    return format_answer(question.boxes, [1.0] * len(question.boxes), thought, sides)


def _classification(question: Question, thought: str | None, sides: Sides) -> str:
    if question.label is None:
        raise ValueError(f"{question.record_id}: a classification question without a label")
    return format_label(question.label, thought)


def _grounding(question: Question, thought: str | None, sides: Sides) -> str:
    if len(question.boxes) != 1:
        raise ValueError(f"{question.record_id}: a grounding question with {len(question.boxes)} boxes; it needs one")
    return format_box(question.boxes[0], thought, sides)


def _gold(question: Question) -> str:
    if not question.label:
        raise ValueError(f"{question.record_id}: a {question.task} question without an answer (`label`)")
    return question.label


def _ranking(question: Question, thought: str, sides: Sides) -> str:
    return format_label(", ".join((_gold(question), *question.others)), thought)


def _of_job(question: Question, template: str | None) -> list[str]:
    try:
        return [render(template, Context({}, question.item or {}))] if template else []
    except GradeError:
        return []  # the row has no such key


TARGETS = {
    "detection": _detection,
    "classification": _classification,
    "grounding": _grounding,
    "ranking": _ranking,
}


def targets(
    question: Question, sides: Sides = THOUSANDTHS, form: Form = "tags", template: str | None = None,
    thinking: bool = True,
) -> list[str]:  # fmt: skip
    """The completions that state the gold answer of any question, with confidence 1: one for each of its thoughts, of
    equal chains one; none for a program that nobody wrote, nor for a row of a job without a `template`
    (`reward.job.target`) or without what that names.

    Boxes and the corners of the thoughts are in whole units of which the picture has `sides`; `form` is that of
    `reward.maths`. Without `thinking` a picture has one target, the bare answer. Raises ValueError for a gold answer
    that the question's parser could not read back.
    """
    if question.task == "maths":
        return list(dict.fromkeys(format_maths(_gold(question), thought, form) for thought in question.thoughts))
    if question.task == "job":
        return _of_job(question, template)
    if question.task == "program":
        return list(dict.fromkeys(format_program(thought) for thought in question.thoughts if thought))
    if not thinking:
        return [TARGETS[question.task](question, None, sides)]
    return [TARGETS[question.task](question, corners(thought, sides), sides) for thought in question.thoughts]
