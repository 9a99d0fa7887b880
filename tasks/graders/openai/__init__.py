"""The graders of OpenAI's reinforcement fine-tuning, by the same JSON (developers.openai.com/api/docs/guides/graders).

A grader file is a `spec`, a completion a `sample` ({"output_text": ...} or {"choices": ...}), a data row an `item`.
"""

from tasks.graders.openai.failures import Failure
from tasks.graders.openai.grade import OpenAIGrade, make_batch_grader, make_openai_grader
from tasks.graders.openai.judge import Judge
from tasks.graders.openai.schema import Spec, parse_spec

__all__ = ["Failure", "Judge", "OpenAIGrade", "Spec", "make_batch_grader", "make_openai_grader", "parse_spec"]
