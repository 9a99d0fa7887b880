"""Colours of the report, light and dark, each at least 4.5:1 on its paper, and told apart by the colour-blind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    paper: str
    ink: str
    muted: str
    line: str
    base: str
    sft: str
    rft: tuple[str, ...]  # one an algorithm, in the grid's order
    gold: str

    def policy(self, policy: str, algorithms: list[str]) -> str:
        return {"base": self.base, "sft": self.sft, **dict(zip(algorithms, self.rft, strict=False))}[policy]


LIGHT = Theme(
    "#ffffff",
    "#1b1d21",
    "#5c626b",
    "#dcdfe4",
    "#5f6670",
    "#b3470b",
    ("#1559a8", "#7b3fa0", "#8a1c4d", "#4d5a12"),
    "#0b7a4b",
)
DARK = Theme(
    "#14161a",
    "#e8eaed",
    "#a2a9b4",
    "#343941",
    "#a2a9b4",
    "#f39a5b",
    ("#7db4ff", "#cf9cf0", "#ff9bc4", "#c6d36a"),
    "#4cc38a",
)
