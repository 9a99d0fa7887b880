"""Tokens, operations and seconds of each stage of a study."""

from dataclasses import dataclass
from math import ceil

from tasks.params import Params
from tasks.planning import flops, machines, memory
from tasks.planning.flops import FORWARD, Pass
from tasks.planning.machines import Gpu
from tasks.planning.memory import Load
from tasks.planning.shapes import Shapes


@dataclass(frozen=True)
class Cost:
    """Of a step, or of a whole run: tokens read and written, operations, seconds."""

    tokens: float = 0
    flops: float = 0
    seconds: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)

    def times(self, number: float) -> "Cost":
        return Cost(self.tokens * number, self.flops * number, self.seconds * number)


class Study:
    """What a params.yaml asks of `processes` GPUs that each take a share of every batch."""

    def __init__(self, params: Params, shapes: Shapes, load: Load, gpu: Gpu, processes: int):
        self.params, self.shapes, self.load, self.gpu, self.processes = params, shapes, load, gpu, processes
        self._recompute = 1 + (params.model.dtype != "float32")  # forward passes of an update

    def answering(self, num: int, group: int, completion: int, batch: int) -> Cost:
        """`num` prompts read, and `group` answers to each written, `batch` prompts at a time."""
        prompt, shapes = self.load.prompt, self.shapes
        reading = flops.row(shapes, prompt, 0, 0, logits=1) + flops.tower(shapes, self.load.picture)
        written = flops.decoding(shapes, prompt, completion, group)
        model = self.params.model
        rounds, own = ceil(num / (batch * self.processes)), min(batch, ceil(num / self.processes))
        kept = memory.keys_and_values(shapes, model, own * (prompt + group * completion // 2))
        each = machines.writing(
            self.gpu, own * written, completion, shapes.layers, memory.weights(shapes, model) + kept
        )
        seconds = machines.computing(self.gpu, num * reading / self.processes) + rounds * each
        return Cost(num * (prompt + group * completion), num * (reading + written), seconds)

    def _learning(self, num: int, group: int, completion: int, passes: Pass, logits: int | None = None) -> Cost:
        prompt = self.load.prompt
        done = num * flops.row(self.shapes, prompt, completion, group, passes, logits)
        # frozen features are kept: encoded once a run, while the prompts are answered
        learns = self.shapes.linear["tower"].trained or self.shapes.linear["merger"].trained
        done += num * flops.tower(self.shapes, self.load.picture, Pass(1, passes.backward)) * bool(learns)
        seconds = machines.computing(self.gpu, done / self.processes)
        return Cost(num * (prompt + group * completion), done, seconds)

    def rft_step(self, algorithm: str) -> Cost:
        """A rollout, and what is learned of it; grading is not counted."""
        rft = self.params.rft
        num, group, length = rft.prompts_per_step, rft.num_generations, rft.max_completion_length
        cost = self.answering(num, group, length, ceil(num / self.processes))
        ppo = algorithm == "ppo"
        scorings = bool(rft.ppo.beta if ppo else rft.beta) + ppo  # the reference's, and the values before an update
        updates = rft.ppo.epochs if ppo else rft.num_iterations
        cost += self._learning(num, group, length, FORWARD).times(scorings)
        return cost + self._learning(num, group, length, Pass(self._recompute, True)).times(updates)

    def sft_step(self, batch: int) -> Cost:
        length = self.load.completion
        passes, logits = Pass(self._recompute, True), self.load.prompt + length
        return self._learning(batch, 1, length, passes, logits)

    def validation(self, num: int) -> Cost:
        grade = self.params.grade
        return self.answering(num * grade.val_samples, 1, grade.max_new_tokens, grade.batch_size)

    def stages(self, train: int, val: int, test: int) -> dict[str, Cost]:
        """One run of each stage; `train`, `val` and `test` are numbers of questions."""
        params, found = self.params, {}
        check = self.validation(val)
        for name in dict.fromkeys((params.grid.init, "sft")):
            section = getattr(params, name)
            steps = section.num_steps(train)
            checks = 1 + ceil(steps / section.eval_steps) if steps else 0
            found[name] = self.sft_step(section.batch_size).times(steps) + check.times(checks)
        for algorithm in params.grid.algorithm:
            checks = 1 + ceil(params.rft.steps / params.rft.eval_steps)
            found[algorithm] = self.rft_step(algorithm).times(params.rft.steps) + check.times(checks)
        grade = params.grade
        found["grade"] = self.answering(test, 1 + grade.samples, grade.max_new_tokens, grade.batch_size)
        return found

    def total(self, stages: dict[str, Cost]) -> Cost:
        """Of the whole grid, the base model's grades included. Stages one after the other."""
        points = len(self.params.grid.k) * len(self.params.grid.seed)
        whole = stages["grade"].times(1 + points * len(self.params.grid.policy))
        for name, cost in stages.items():
            if name != "grade":
                whole += cost.times(points)
        return whole
