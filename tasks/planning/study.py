"""Tokens, operations and seconds of each stage of a study."""

from dataclasses import dataclass
from math import ceil

from tasks.params import Params
from tasks.planning import flops, machines, memory
from tasks.planning.flops import FORWARD, Pass
from tasks.planning.machines import Gpu
from tasks.planning.memory import Load
from tasks.planning.shapes import Shapes
from tasks.schema.launch import Launch


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
    """What a params.yaml asks of GPUs, one for each of `launch.num_processes`, that share every batch."""

    def __init__(self, params: Params, shapes: Shapes, load: Load, gpu: Gpu):
        self.params, self.shapes, self.load, self.gpu = params, shapes, load, gpu
        self.processes = params.launch.num_processes
        self._dtype = params.model.computing
        self._recompute = 1 + (self._dtype != "float32")  # forward passes of an update

    def answering(self, num: int, group: int, completion: int, batch: int) -> Cost:
        """`num` prompts read, and `group` answers to each written, `batch` prompts at a time."""
        prompt, shapes = self.load.prompt, self.shapes
        reading = flops.row(shapes, prompt, 0, 0, logits=1) + flops.tower(shapes, self.load.picture)
        written = flops.decoding(shapes, prompt, completion, group)
        model = self.params.model
        rounds, own = ceil(num / (batch * self.processes)), min(batch, ceil(num / self.processes))
        kept = memory.keys_and_values(shapes, model, own * (prompt + group * completion // 2))
        read = memory.weights(shapes, model.model_copy(update={"dtype": self._dtype}))  # copies, in mixed precision
        each = machines.writing(self.gpu, self._dtype, own * written, completion, shapes.layers, read + kept)
        seconds = machines.computing(self.gpu, self._dtype, num * reading / self.processes) + rounds * each
        return Cost(num * (prompt + group * completion), num * (reading + written), seconds)

    def _learning(self, num: int, group: int, completion: int, passes: Pass, logits: int | None = None) -> Cost:
        prompt = self.load.prompt
        done = num * flops.row(self.shapes, prompt, completion, group, passes, logits)
        # frozen features are kept: encoded once a run, while the prompts are answered
        learns = self.shapes.linear["tower"].trained or self.shapes.linear["merger"].trained
        done += num * flops.tower(self.shapes, self.load.picture, Pass(1, passes.backward)) * bool(learns)
        seconds = machines.computing(self.gpu, self._dtype, done / self.processes)
        return Cost(num * (prompt + group * completion), done, seconds)

    def rft_step(self, algorithm: str) -> Cost:
        """A rollout, and what is learned of it; grading is not counted. Of offline_st, which samples once, a step is a
        supervised one.
        """
        if algorithm == "offline_st":
            return self.sft_step(self.params.rft.self_training.batch_size)
        rft = self.params.rft
        num, group, length = rft.prompts_per_step, rft.num_generations, rft.max_completion_length
        cost = self.answering(num, group, length, ceil(num / self.processes))
        scorings, updates = {  # by the reference, and of PPO's values before an update
            "grpo": (bool(rft.beta), rft.num_iterations),
            "ppo": (bool(rft.ppo.beta) + 1, rft.ppo.epochs),
            "online_st": (0, 1),
        }[algorithm]
        cost += self._learning(num, group, length, FORWARD).times(scorings)
        return cost + self._learning(num, group, length, Pass(self._recompute, True)).times(updates)

    def sft_step(self, batch: int) -> Cost:
        length = self.load.completion
        passes, logits = Pass(self._recompute, True), self.load.prompt + length
        return self._learning(batch, 1, length, passes, logits)

    def answers(self, num: int, samples: int, length: int) -> Cost:
        """As tasks.models.generate makes them: grade.batch_size completions at a time, a prompt read once."""
        return self.answering(num, samples, length, max(1, self.params.grade.batch_size // max(1, samples)))

    def stages(self, train: int, val: int, test: int) -> dict[str, Cost]:
        """One run of each stage; `train`, `val` and `test` are numbers of questions."""
        params, grade, rft, found = self.params, self.params.grade, self.params.rft, {}
        check = self.answers(val, grade.val_samples, grade.max_new_tokens)
        for name in dict.fromkeys((params.grid.init, "sft")):
            section = getattr(params, name)
            steps = section.num_steps(train)
            checks = 1 + ceil(steps / section.eval_steps) if steps else 0
            found[name] = self.sft_step(section.batch_size).times(steps) + check.times(checks)
        for algorithm in params.grid.algorithm:
            checks = 1 + ceil(rft.steps / rft.eval_steps)
            found[algorithm] = self.rft_step(algorithm).times(rft.steps) + check.times(checks)
            if algorithm == "offline_st":
                found[algorithm] += self.answers(train, rft.self_training.samples, rft.max_completion_length)
        return found | self._alone().graded(train, val, test)

    def _alone(self) -> "Study":
        """Of one process: `launch` does not share out what is not a training of a policy."""
        single = self.params.model_copy(update={"launch": Launch(backend="single", num_processes=1)})
        return Study(single, self.shapes, self.load, self.gpu)

    def graded(self, train: int, val: int, test: int) -> dict[str, Cost]:
        """`grade`, and `rerank` where there is one: a reward model whose chains are sampled, learned from and scored,
        then the samples of the test; all as if no two were alike.
        """
        grade, settings, length = self.params.grade, self.params.reward_model, self.params.grade.max_new_tokens
        found = {"grade": self.answers(test, 1, length) + self.answers(test, grade.samples, length)}
        if self.params.grid.rerank:
            judged = val * settings.samples * settings.epochs + test * grade.samples
            learned = self._learning(train * settings.samples, 1, length, Pass(self._recompute, True), logits=0)
            found["rerank"] = self.answers(train + val, settings.samples, length) + learned.times(settings.epochs)
            found["rerank"] += self._learning(judged, 1, length, FORWARD, logits=0)
        return found

    def total(self, stages: dict[str, Cost]) -> Cost:
        """Of the whole grid, the base model's grades included. Stages one after the other."""
        grid = self.params.grid
        points = len(grid.k) * len(grid.seed)
        times = {"grade": 1 + points * len(grid.policy), "rerank": points * len(grid.rerank)}
        whole = Cost()
        for name, cost in stages.items():
            whole += cost.times(times.get(name, points))
        return whole
