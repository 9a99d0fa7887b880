"""Scores over a whole set of answers, and how sure they are."""
