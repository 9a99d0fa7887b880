"""A step of GRPO by our engine and by TRL's stock GRPOTrainer: seconds and peak memory, in one run, in turns.

`python -m benchmarks.rft_step [--json] [--prompt-tokens 262] [--generations 8] [--completion 64] [--prompts 4]`

Both train the same Qwen2-VL of about 30 million random weights on the same prompts and pictures, with completions of
the same length and a random reward. Each runs in a process of its own, for its memory, and waits while the other has
its turn. `rollout` is all that comes before the first loss, grading included; `update` is the rest.

`--sweep FOLDER --steps 2 --prompts 2` measures every prompt length and group size of SWEEP, small ones first, and
leaves sweep.csv and sweep.png there; after `--minutes` it begins no further one, and typed again it goes on.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import math
import multiprocessing
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image
from transformers import (
    AutoTokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tasks.data.questions import messages
from tasks.data.records import Question, write_jsonl
from tasks.graders.rubric import Grade
from tasks.models.processors import PROCESSORS
from tasks.models.training import Job
from tasks.params import load_params
from tasks.rl.grpo import Grpo
from tasks.rl.trainer import Trainer
from tasks.rl.trl_grpo import make_trainer

SWEEP = ((64, 262, 512, 1024), (2, 4, 8, 16))  # prompt tokens, generations
PARTS = ("rollout", "update", "step", "peak_mb")
WARM_UP = 1


def picture_side(prompt_tokens: int) -> int:
    """Pixels of a picture that is at most three quarters of the prompt: 14 x 14 of 262 tokens."""
    return 28 * math.isqrt(prompt_tokens * 3 // 4)


def write_model(folder: Path, side: int) -> None:
    """A Qwen2-VL of random weights, with the shipped model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained("models/tiny")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    text = dict(
        vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 8, 8]},
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=dict(depth=4, embed_dim=256, hidden_size=512, num_heads=8, patch_size=14),
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(min_pixels=side * side, max_pixels=side * side)
    template = tokenizer.chat_template
    PROCESSORS["qwen2_vl"](image_processor=images, tokenizer=tokenizer, chat_template=template).save_pretrained(folder)


def write_data(folder: Path, args: argparse.Namespace) -> None:
    """A prompt and a picture for every step, so that nothing is kept from one to the next; P tokens each."""
    tokenizer = AutoTokenizer.from_pretrained("models/tiny")
    empty = tokenizer.apply_chat_template(
        messages(load_params().prompt.model_copy(update={"detection": "{asked}"}), Question("", "", "detection", "")),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"]
    side = picture_side(args.prompt_tokens)
    words = args.prompt_tokens - (len(empty) - 1 + (side // 28) ** 2)
    if words < 1:
        raise SystemExit(f"--prompt-tokens must be at least {args.prompt_tokens - words + 1}, for the picture")
    generator = np.random.default_rng(0)
    questions = []
    for number in range(args.prompts * (args.steps + WARM_UP)):
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        questions.append(Question(str(number), f"{number}.png", "detection", str(number % 10) * words))
    write_jsonl(folder / "train.jsonl", questions)
    write_jsonl(folder / "val.jsonl", questions[:1])


def make_job(folder: Path, args: argparse.Namespace) -> Job:
    params = load_params()
    rft = params.rft.model_copy(
        update=dict(
            steps=args.steps + WARM_UP, prompts_per_step=args.prompts, num_generations=args.generations,
            max_completion_length=args.completion, beta=args.beta, temperature=1.0, num_iterations=1,
        )
    )  # fmt: skip
    model = params.model.model_copy(update={"lora": None, "min_pixels": None, "max_pixels": None})
    prompt = params.prompt.model_copy(update={"detection": "{asked}"})
    params = params.model_copy(update={"rft": rft, "model": model, "prompt": prompt})
    job = Job(params, "grpo", folder, folder, folder / "model", 0)
    chance = random.Random(0)
    job.grader = lambda text, question: Grade(chance.random(), {"chance": 0.0}, None, (), ())
    return job


def memory(name: str) -> float:
    """MB of this process: VmHWM (the peak) or VmRSS (now); on a GPU, of its memory."""
    if torch.cuda.is_available():
        return (torch.cuda.max_memory_allocated() if name == "VmHWM" else torch.cuda.memory_allocated()) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def run_kshot(pipe: Connection, folder: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    job = make_job(folder, args)
    trainer = Trainer(job, Grpo)
    # without an end of turn, every completion has the greatest length
    sampling = trainer.sampling
    trainer.sampling = dataclasses.replace(sampling, forbidden=(*sampling.forbidden, sampling.eos))
    pipe.send(memory("VmRSS"))
    for _ in range(args.steps + WARM_UP):
        pipe.recv()
        began = time.perf_counter()
        metrics = trainer.step()
        trainer.state.global_step += 1
        assert metrics["completion_length"] == args.completion
        rollout = metrics["seconds_rollout"] + metrics["seconds_grade"]
        pipe.send({"rollout": rollout, "update": metrics["seconds_update"], "step": time.perf_counter() - began})
    pipe.send(memory("VmHWM"))


def run_trl(pipe: Connection, folder: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    seconds: dict[str, float] = {}

    class Turns(TrainerCallback):
        def on_step_begin(self, arguments, state: TrainerState, control: TrainerControl, **kwargs):
            pipe.recv()
            seconds["began"] = time.perf_counter()

        def on_step_end(self, arguments, state: TrainerState, control: TrainerControl, **kwargs):
            step = time.perf_counter() - seconds["began"]
            pipe.send({"rollout": seconds["rollout"], "update": step - seconds["rollout"], "step": step})

    trainer = make_trainer(make_job(folder, args), str(folder / "trl"), [Turns()])
    trainer.generation_config.suppress_tokens.append(trainer.processing_class.tokenizer.eos_token_id)
    generate = trainer._generate_and_score_completions

    def timed(inputs):
        began = time.perf_counter()
        outputs = generate(inputs)
        seconds["rollout"] = time.perf_counter() - began
        assert outputs["completion_mask"].sum() == args.prompts * args.generations * args.completion
        return outputs

    trainer._generate_and_score_completions = timed
    pipe.send(memory("VmRSS"))
    trainer.train()
    pipe.send(memory("VmHWM"))


def measure(args: argparse.Namespace) -> dict:
    """Medians of seconds, peak memory in MB and what of it came on top of the loaded trainer; TRL's by ours."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", picture_side(args.prompt_tokens))
        write_data(folder, args)
        pipes, processes = {}, []
        for engine, target in (("kshot", run_kshot), ("trl", run_trl)):
            pipes[engine], other = context.Pipe()
            processes.append(context.Process(target=target, args=(other, folder, args), daemon=True))
            processes[-1].start()
            other.close()  # a worker that ends early then ends the wait for it
        loaded = {engine: pipe.recv() for engine, pipe in pipes.items()}
        times = {engine: [] for engine in pipes}
        for _ in range(args.steps + WARM_UP):
            for engine, pipe in pipes.items():
                pipe.send("go")
                times[engine].append(pipe.recv())
        peaks = {engine: pipe.recv() for engine, pipe in pipes.items()}
        for process in processes:
            process.join()
    results = {}
    for engine, rows in times.items():
        medians = {part: statistics.median(row[part] for row in rows[WARM_UP:]) for part in rows[0]}
        results[engine] = {**medians, "peak_mb": peaks[engine], "working_mb": peaks[engine] - loaded[engine]}
    ratios = {name: results["trl"][name] / value for name, value in results["kshot"].items()}
    tokens = {
        "kshot": args.prompts * (args.prompt_tokens + args.generations * args.completion),
        "trl": args.prompts * args.generations * (args.prompt_tokens + args.completion),
    }
    return {
        **results,
        "ratio": ratios,
        "tokens_per_pass": tokens,
        "settings": {name: value for name, value in vars(args).items() if name not in ("sweep", "minutes")},
    }


def _measured(path: Path) -> list[dict]:
    """The rows of an earlier sweep; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [row | {name: int(row[name]) for name in ("prompt_tokens", "generations")} for row in rows]


def sweep(folder: Path, args: argparse.Namespace) -> list[dict]:
    """A row for each pair of SWEEP that was begun in time, now or before."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, end = _measured(folder / "sweep.csv"), time.monotonic() + 60 * args.minutes
    done = {(row["prompt_tokens"], row["generations"]) for row in rows}
    pairs = sorted(set(itertools.product(*SWEEP)) - done, key=lambda pair: (pair[0] * pair[1], pair))
    print(f"{len(pairs)} settings in at most {args.minutes:g} minutes and the time of the last one begun")
    for number, (prompt_tokens, generations) in enumerate(pairs):
        if time.monotonic() > end:
            print(f"out of time: {len(pairs) - number} settings are left out")
            break
        settings = {**vars(args), "prompt_tokens": prompt_tokens, "generations": generations}
        result = measure(argparse.Namespace(**settings))
        engines = {f"{name}_{part}": result[name][part] for name in ("kshot", "trl", "ratio") for part in PARTS}
        rows.append({"prompt_tokens": prompt_tokens, "generations": generations, **engines})
        print("P {prompt_tokens}, G {generations}: step {ratio_step:.2f} times as fast".format(**rows[-1]), flush=True)
        with (folder / "sweep.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    plot(rows, folder / "sweep.png")
    return rows


def plot(rows: list[dict], path: Path) -> None:
    """How many times as fast as TRL, by prompt tokens, a line for each number of generations."""
    matplotlib.use("agg")
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axes, part in zip(panels, ("update", "step"), strict=True):
        for generations in sorted({row["generations"] for row in rows}):
            own = sorted((r["prompt_tokens"], r[f"ratio_{part}"]) for r in rows if r["generations"] == generations)
            axes.plot(*zip(*own, strict=True), marker="o", label=f"G = {generations}")
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel="prompt tokens", title=part)
        axes.set_xticks(SWEEP[0], SWEEP[0])
    panels[0].set_ylabel("seconds of TRL by ours")
    panels[1].legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--prompt-tokens", type=int, default=262, help="three quarters of them are the picture's")
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=4, help="a step")
    parser.add_argument("--steps", type=int, default=5, help="measured, after one that is not")
    parser.add_argument("--beta", type=float, default=0.0, help="above 0, both compute a reference")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sweep", type=Path, metavar="FOLDER", help="measure every setting of SWEEP")
    parser.add_argument("--minutes", type=float, default=60, help="of --sweep, after which no setting is begun")
    args = parser.parse_args()
    if args.sweep:
        sweep(args.sweep, args)
        return
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{'':12}" + "".join(f"{name:>14}" for name in result["ratio"]))
    for row in ("kshot", "trl", "ratio"):
        print(f"{row:12}" + "".join(f"{value:14.2f}" for value in result[row].values()))
    print("tokens in a forward pass of a step: kshot {kshot}, trl {trl}".format(**result["tokens_per_pass"]))


if __name__ == "__main__":
    main()
