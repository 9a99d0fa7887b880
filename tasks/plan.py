"""What a study will need, before anything is downloaded or trained.

    python -m tasks.plan --gpu 4090
    python -m tasks.plan --gpu H200 --processes 8 --picture 640x480 --train 64 --val 50 --test 2000

reads params.yaml and says parameters, memory, tokens, operations and time of a step and of the study, what does not fit
and which settings make it fit. Completions are counted at their greatest length, so these are upper bounds. The
words of a prompt are estimated (4 letters a token); --prompt-tokens says better. Parameters are exact, operations agree
with torch.utils.flop_counter, memory with measurements on a CPU to a third; the seconds have NOT been checked on a GPU.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from math import ceil
from operator import getitem
from pathlib import Path

from tasks.models.precision import LEAST_STEP
from tasks.params import Params, ParamsError, load_params, validate
from tasks.planning import memory
from tasks.planning.machines import GPUS, USABLE, Gpu
from tasks.planning.memory import Load, Memory
from tasks.planning.shapes import picture, shapes
from tasks.planning.study import Cost, Study

LETTERS = 4  # a token, of English with a vocabulary of 150,000
TEMPLATE = 16  # tokens of a chat template around a question
ADAPTER = {"r": 64, "alpha": 128.0, "dropout": 0.0, "target_modules": "all-linear"}
# each is halved until the run fits
KNOBS = {
    "rft": ("rft.micro_batch_tokens", "rft.prompts_per_step", "rft.num_generations", "grade.batch_size"),
    "sft": ("sft.batch_size", "grade.batch_size"),
    "offline_st": ("rft.self_training.batch_size", "grade.batch_size"),
}
STAGES = {"sft": memory.sft, "rft": memory.rft, "offline_st": memory.offline_st}
Needed = Callable[[Params], Memory]


def trained_stages(params: Params) -> list[str]:
    """Those of STAGES that the grid has: self-training on samples is supervised, all other RFT is of one kind."""
    rft = ["rft"] * (params.grid.algorithm != ["offline_st"])
    return ["sft", *rft, *(["offline_st"] * ("offline_st" in params.grid.algorithm))]


def load_of(params: Params, size: tuple[int, int], prompt_tokens: int | None) -> Load:
    """The largest question of the study."""
    seen = picture(params.model, size)
    texts = [text for text in params.prompt.model_dump().values() if isinstance(text, str)]
    words = prompt_tokens or max(ceil(len(text) / LETTERS) for text in texts) + TEMPLATE
    return Load(words + seen.tokens, params.rft.max_completion_length, seen)


def changed(params: Params, key: str, value: object) -> Params:
    """With one setting changed; `key` as in params.yaml. ParamsError where it cannot be."""
    raw = params.model_dump()
    *sections, name = key.split(".")
    reduce(getitem, sections, raw)[name] = value
    return validate(raw, key)


def fixes(params: Params, stage: str, needed: Needed, there: float) -> Iterator[str]:
    """Single settings with which a stage fits, as they are typed."""
    lowest = {"rft.num_generations": 2}
    for key in KNOBS[stage]:
        value = reduce(getattr, key.split("."), params)
        while value > lowest.get(key, 1):
            value = max(value // 2, lowest.get(key, 1))
            if fitting(params, key, value, needed, there):
                yield f"{key}={value}"
                break
    for words, key, value in models(params):
        if fitting(params, key, value, needed, there):
            yield words


def fitting(params: Params, key: str, value: object, needed: Needed, there: float) -> bool:
    """Whether a stage fits with one setting changed, if it may be: a batch must share out over the processes."""
    try:
        return needed(changed(params, key, value)).peak <= there
    except ParamsError:
        return False


def models(params: Params) -> Iterator[tuple[str, str, object]]:
    """(what is typed, key, value) of what makes the model itself smaller."""
    lora, lowest = params.model.lora, min(getattr(params, name).learning_rate for name in ("warmup", "sft", "rft"))
    rounded = lora is None and lowest < LEAST_STEP  # steps, by bfloat16 weights: preflight warns of it
    if params.model.dtype == "float32" and not rounded:
        yield "model.dtype=bfloat16", "model.dtype", "bfloat16"
    elif params.model.computing == "float32":
        yield "model.compute=bfloat16", "model.compute", "bfloat16"
    if lora is None:
        yield f"model.lora={typed(ADAPTER)}", "model.lora", ADAPTER
    if lora is None or not lora.quantize:
        small = {**(lora.model_dump() if lora else ADAPTER), "quantize": "nf4"}
        yield "model.lora.quantize=nf4" if lora else f"model.lora={typed(small)}", "model.lora", small


def typed(values: dict) -> str:
    """A section in Hydra's grammar."""
    return "{" + ",".join(f"{key}:{value}" for key, value in values.items()) + "}"


def all_fixes(params: Params, stage: str, needed: Needed, there: float) -> list[str]:
    """Single settings, or where none is enough pairs of a smaller model and one more."""
    if found := list(fixes(params, stage, needed, there)):
        return found
    return [
        f"{words} {fix}"
        for words, key, value in models(params)
        for fix in fixes(changed(params, key, value), stage, needed, there)
    ]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def memory_lines(params: Params, stage: str, load: Load, gpu: Gpu) -> Iterator[str]:
    """What a process of a stage holds, whether it fits, and what makes it fit."""
    there = gpu.memory * USABLE

    def needed(params: Params) -> Memory:
        return STAGES[stage](params, shapes(params.model), load, gpu)

    found = needed(params)
    held = {**found.kept, **found.moments[found.worst]}
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in held.items() if size)
    fits = found.peak <= there
    yield f"{stage}: {gigabytes(found.peak)} at its {found.worst} ({parts}): {'fits' if fits else 'DOES NOT FIT'}"
    if fits:
        return
    told = all_fixes(params, stage, needed, there)
    yield f"  fits with {', or '.join(told)}" if told else "  no two settings make it fit: take a smaller model"
    if stage == "rft" and params.launch.backend == "ddp" and not (params.model.lora and params.model.lora.quantize):
        share = needed(changed(params, "launch.backend", "fsdp")).peak
        yield f"  launch=fsdp: {gigabytes(share)}, {'fits' if share <= there else 'does not fit'}"


def report(params: Params, gpu_name: str, load: Load, questions: tuple[int, int, int]) -> str:
    gpu, sizes, launch = GPUS[gpu_name], shapes(params.model), params.launch
    learns = "beside them learn, in an adapter" if sizes.adapter else "of them learn"
    lines = [
        f"{params.study}: {params.model.path} on {launch.num_processes} x {gpu_name} ({gigabytes(gpu.memory)} each), "
        f"launch {launch.backend}",
        "",
        f"parameters: {sizes.total:,}, {sizes.trained:,} {learns}",
        f"a prompt: {load.prompt:,} tokens, {load.picture.tokens:,} the picture's; an answer: {load.completion:,}",
        "",
        f"memory of a process, of which {gigabytes(gpu.memory * USABLE)} can be used:",
        *(line for stage in trained_stages(params) for line in memory_lines(params, stage, load, gpu)),
        "",
        f"{'':14}{'tokens':>12}{'PFLOPs':>12}{'seconds':>12}",
    ]
    study = Study(params, sizes, load, gpu)
    rows = {"sft, a step": study.sft_step(params.sft.batch_size)}
    rows |= {f"{name}, a step": study.rft_step(name) for name in params.grid.algorithm}
    stages = study.stages(*questions)
    rows |= {f"{name}, a run": cost for name, cost in stages.items()}
    rows["the study"] = study.total(stages)
    lines += [cost_line(name, cost) for name, cost in rows.items()]
    return "\n".join([*lines, "", "Seconds are of a model of the machine that has not been checked on a GPU."])


def cost_line(name: str, cost: Cost) -> str:
    return f"{name:14}{cost.tokens:12,.0f}{cost.flops / 1e15:12,.2f}{cost.seconds:12,.1f}"


def on_processes(params: Params, num: int | None) -> Params:
    """With `num` processes in place of those of `launch`, if given; sharded if those are. ParamsError for a number over
    which the batches do not share out.
    """
    if num is None:
        return params
    several = "ddp" if params.launch.backend == "single" else params.launch.backend
    return changed(params, "launch", {"backend": several if num > 1 else "single", "num_processes": num})


def pixels(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--gpu", choices=GPUS, default="H100")
    parser.add_argument("--processes", type=int, help="GPUs, each with a share of every batch (default: as in launch)")
    parser.add_argument("--picture", type=pixels, default=(640, 480), metavar="WxH")
    parser.add_argument("--prompt-tokens", type=int, help="of words, without the picture")
    for split, number in (("train", 64), ("val", 100), ("test", 1000)):
        parser.add_argument(f"--{split}", type=int, default=number, help=f"questions (default {number})")
    args = parser.parse_args()
    try:
        params = on_processes(load_params(args.params), args.processes)
        load = load_of(params, args.picture, args.prompt_tokens)
        print(report(params, args.gpu, load, (args.train, args.val, args.test)))
    except (ParamsError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
