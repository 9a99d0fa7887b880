"""Pretrain the shipped base model on printed digits, from nothing (`make base`), in two phases, a command each:

    python -m tasks.models.pretrain look --out .rft/tower.safetensors
    python -m tasks.models.pretrain talk --tower .rft/tower.safetensors --out models/tiny

`look`: the vision tower alone; every patch must tell which digit covers it, its ink and its box, through a
head that is thrown away at the end (dense supervision, as detectors are pretrained; it takes the tower to the digits'
names within minutes, where next-token loss alone stays at chance for an hour). `talk`: the tower is frozen, and the
language model learns the answers of `tasks.models.lessons` by next-token loss. Muon for the matrices, AdamW for the
rest (Jordan et al. 2024), a learning rate that decays linearly over the last third. About an hour on two cores.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from tasks.data.scenes import INKS
from tasks.models.lessons import GRID, Lessons, corpus
from tasks.models.tiny import MERGE, build_model, build_processor, build_tokenizer

GRID_THW = [1, GRID, GRID]


class PatchHead(nn.Module):
    """The auxiliary head: merged patch features (N, H) -> digit logits (N, 4, 11), ink logits (N, 4, 6) and boxes
    (N, 4, 4) for its four patches.
    """

    SIZES = (11, len(INKS), 4)

    def __init__(self, hidden: int):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, MERGE**2 * sum(self.SIZES))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.out(self.norm(x)).unflatten(-1, (MERGE**2, sum(self.SIZES))).split(self.SIZES, -1)


def optimizers(trained: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices; AdamW for embeddings, the patch convolution, norms, biases and the patch head."""
    matrices, rest = [], []
    heads = {id(p) for module in trained.modules() if isinstance(module, PatchHead) for p in module.parameters()}
    for name, p in trained.named_parameters():
        (matrices if p.ndim == 2 and "embed" not in name and id(p) not in heads else rest).append(p)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: 100 steps up, constant, down to nothing over the last third."""
    return min((step + 1) / 100, 1.0, 3 * (1 - step / steps))


def look_loss(model: nn.Module, head: PatchHead, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """The patch loss of the features that the language model will see."""
    num = len(batch["digit"])
    features = model.model.visual(batch["pixel_values"], grid_thw=torch.tensor([GRID_THW] * num)).pooler_output
    logits, inks, boxes = head(features.view(num, -1, features.shape[-1]))
    covered = batch["digit"] < 10
    naming = F.cross_entropy(logits.flatten(0, 2), batch["digit"].flatten())
    placing = F.smooth_l1_loss(boxes[covered], batch["box"][covered], beta=0.02)
    dyeing = F.cross_entropy(inks[covered], batch["ink"][covered])
    right = (logits[..., :10].argmax(-1)[covered] == batch["digit"][covered]).float().mean()
    logs = {"naming": naming.item(), "dyeing": dyeing.item(), "placing": placing.item(), "patch_accuracy": right.item()}
    return naming + dyeing / 4 + 5 * placing, logs


def seen(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the model takes beside the ids. The picture is at the same place in every row, so one row's M-RoPE serves
    all.
    """
    if "pixel_values" not in batch:
        return {}
    ids, grid = batch["input_ids"], torch.tensor([GRID_THW])
    types = (ids == model.config.image_token_id).long()
    positions, _ = model.model.get_rope_index(ids[:1], mm_token_type_ids=types[:1], image_grid_thw=grid)
    return {
        "pixel_values": batch["pixel_values"],
        "image_grid_thw": grid.repeat(len(ids), 1),
        "position_ids": positions.expand(-1, len(ids), -1),
        "mm_token_type_ids": types,
    }


def talk_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """Next-token loss on the answers."""
    ids, labels = batch["input_ids"], batch["labels"]
    hidden = model.model(input_ids=ids, **seen(model, batch), use_cache=False).last_hidden_state[:, :-1]
    answers = labels[:, 1:] != -100
    loss = F.cross_entropy(model.lm_head(hidden[answers]), labels[:, 1:][answers])
    return loss, {"loss" if "pixel_values" in batch else "text": loss.item()}


def run_phase(phase: str, trained: nn.Module, loss_of: Callable, lessons: Lessons, steps: int, lr: float) -> None:
    """`steps` batches; a JSON line on stdout every 50."""
    opts = optimizers(trained, lr)
    batches = iter(DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=8))
    began, recent = time.time(), []
    for step in range(steps):
        for group in (g for opt in opts for g in opt.param_groups):
            group["lr"] = lr * schedule(step, steps)
        loss, logs = loss_of(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        recent.append(logs)
        if step % 50 == 49:
            values = {key: [r[key] for r in recent if key in r] for key in sorted({k for r in recent for k in r})}
            means = {key: round(sum(v) / len(v), 4) for key, v in values.items()}
            line = {"phase": phase, "step": step + 1, "seconds": round(time.time() - began), **means}
            print(json.dumps(line), flush=True)
            recent = []


def look(out: Path, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """The vision phase; writes the tower's float32 weights to the file `out`."""
    torch.manual_seed(seed)
    model = build_model(build_tokenizer(corpus()))
    head, visual = PatchHead(model.config.vision_config.out_hidden_size), model.model.visual
    scenes = Lessons(None, batch_size, seed)
    run_phase("look", nn.ModuleList([visual, head]), partial(look_loss, model, head), scenes, steps, lr)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(visual.state_dict(), out)


def talk(tower: Path, out: Path, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """The language phase over a frozen tower; writes a Hugging Face folder with bfloat16 weights to `out`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(corpus())
    model = build_model(tokenizer)
    model.model.visual.load_state_dict(load_file(tower))
    model.model.visual.requires_grad_(False)
    rows = Lessons(tokenizer, batch_size, seed + 1)
    run_phase("talk", model.model.language_model, partial(talk_loss, model), rows, steps, lr)
    model.to(torch.bfloat16).save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    phases = parser.add_subparsers(dest="phase", required=True)
    for phase, steps in (look, 2000), (talk, 2400):
        command = phases.add_parser(phase.__name__, help=phase.__doc__.splitlines()[0])
        command.set_defaults(run=phase)
        if phase is talk:
            command.add_argument("--tower", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--steps", type=int, default=steps)
        command.add_argument("--batch-size", type=int, default=64)
        command.add_argument("--lr", type=float, default=3e-3)
        command.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args())
    del args["phase"]
    args.pop("run")(**args)


if __name__ == "__main__":
    main()
