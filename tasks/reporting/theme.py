"""Colours of the report, light and dark, each at least 4.5:1 on its paper, and told apart by the colour-blind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    paper: str
    tint: str  # behind text that is set apart
    ink: str
    muted: str
    line: str
    alarm: str
    base: str
    sft: str
    rft: tuple[str, ...]  # one an algorithm, in the grid's order
    gold: str

    def policy(self, policy: str, algorithms: list[str]) -> str:
        return {"base": self.base, "sft": self.sft, **dict(zip(algorithms, self.rft, strict=False))}[policy]

    def variables(self, algorithms: list[str]) -> dict[str, str]:
        """{name of the page's variable: colour}; no colour stands for two of them."""
        shared = {name: colour for name, colour in vars(self).items() if name != "rft"}
        return shared | dict(zip(algorithms, self.rft, strict=False))


LIGHT = Theme(
    paper="#ffffff", tint="#f5f6f8", ink="#1b1d21", muted="#5c626b", line="#dcdfe4", alarm="#b3141f", base="#5f6670",
    sft="#b3470b", rft=("#1559a8", "#7b3fa0", "#8a1c4d", "#4d5a12"), gold="#0b7a4b",
)  # fmt: skip
DARK = Theme(
    paper="#14161a", tint="#1d2025", ink="#e8eaed", muted="#a2a9b4", line="#343941", alarm="#ff8f8f", base="#a1a8b3",
    sft="#f39a5b", rft=("#7db4ff", "#cf9cf0", "#ff9bc4", "#c6d36a"), gold="#4cc38a",
)  # fmt: skip
