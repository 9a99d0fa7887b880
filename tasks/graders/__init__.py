"""Verifiable rewards. One parser and one grader, shared by training, validation and grading; no torch here."""

from tasks.graders.rubric import Grade, make_grader

__all__ = ["Grade", "make_grader"]
