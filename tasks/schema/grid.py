"""The section `grid` of `params.yaml`: what a study varies."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.schema.base import Count, Section

ALGORITHMS = ("grpo", "ppo", "offline_st", "online_st")


class Grid(Section):
    """What a study varies. `policy` is `sft` and the algorithms: the policies graded beside the base model. Samples of
    those of them in `rerank` are chosen among by a reward model too.

    `matched` says what SFT and RFT have alike beside the labelled samples: nothing (`data`: SFT takes the steps that
    the section `sft` gives it), or what the first algorithm's run spent with its warm-up, in gradient steps (`steps`)
    or in FLOPs (`flops`). SFT then needs that run, which is another edge of the graph: `k_own` and `k_matched`, of
    which one is `k` and the other empty, are the matrices of the stages `sft` and `sft_matched`.

    `init` is the policy that RFT goes on from, and `k_warmup` the matrix of the stage `warmup`: a warm-up with the
    settings of SFT is the SFT policy, which is trained once.
    """

    k: Annotated[list[Count], Field(min_length=1)]
    seed: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    algorithm: Annotated[list[Literal[ALGORITHMS]], Field(min_length=1)]
    policy: Annotated[list[str], Field(min_length=1)]
    rerank: list[str] = Field(default=[])
    matched: Literal["data", "steps", "flops"] = "data"
    k_own: list[Count] = Field(default_factory=lambda grid: grid["k"] if grid["matched"] == "data" else [])
    k_matched: list[Count] = Field(default_factory=lambda grid: [] if grid["matched"] == "data" else grid["k"])
    init: Literal["sft", "warmup"] = "warmup"
    k_warmup: list[Count] = Field(default_factory=lambda grid: grid["k"] if grid["init"] == "warmup" else [])

    @model_validator(mode="after")
    def _matrices(self):
        own, matched = (self.k, []) if self.matched == "data" else ([], self.k)
        warmup = self.k if self.init == "warmup" else []
        if (self.k_own, self.k_matched, self.k_warmup) != (own, matched, warmup):
            raise ValueError(
                f"with matched {self.matched}, init {self.init} and k {self.k}, k_own must be {own}, k_matched "
                f"{matched} and k_warmup {warmup}: python -m flows.compose writes them"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self):
        if self.policy != ["sft", *self.algorithm]:
            raise ValueError(f"policy must be {['sft', *self.algorithm]} (sft, then grid.algorithm), not {self.policy}")
        if unknown := sorted(set(self.rerank) - set(self.policy)):
            raise ValueError(f"rerank holds {unknown[0]!r}, which is not in policy {self.policy}")
        for name in ("k", "seed", "algorithm", "rerank"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} holds a value twice: {values}")
        return self
