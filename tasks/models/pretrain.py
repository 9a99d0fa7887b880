"""Pretrain the shipped base model on printed digits, from nothing: `python -m tasks.models.pretrain --out
models/tiny` (`make base`).

Two phases. First the vision tower alone: every patch must tell which digit covers it and that digit's box, through a
head that is thrown away at the end (dense supervision, as detectors are pretrained; it takes the tower to the digits'
names within minutes, where next-token loss alone stays at chance for an hour). Then the whole model: next-token loss
on the answers of `tasks.models.lessons`, the patch loss beside it with a new head. Muon for the matrices, AdamW for
the rest (Jordan et al. 2024), a constant learning rate that decays linearly over the last third of the second phase.
About an hour on two cores.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from tasks.models.lessons import GRID, Lessons, corpus
from tasks.models.tiny import MERGE, build_model, build_processor, build_tokenizer

GRID_THW = [1, GRID, GRID]


class PatchHead(nn.Module):
    """The auxiliary head: merged patch features (N, H) -> digit logits (N, 4, 11) and boxes (N, 4, 4) for its four
    patches.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, MERGE**2 * 15)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.out(self.norm(x)).unflatten(-1, (MERGE**2, 15))
        return y[..., :11], y[..., 11:]


def optimizers(model: nn.Module, head: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices; AdamW for embeddings, the patch convolution, norms, biases and the head."""
    matrices, rest = [], list(head.parameters())
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and "embed" not in name else rest).append(p)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def schedule(step: int, steps: float) -> float:
    """Factor of the learning rate: 100 steps up, constant, down to nothing over the last third (never, of infinitely
    many).
    """
    return min((step + 1) / 100, 1.0, 3 * (1 - step / steps))


class Teacher:
    """The two losses of one batch; the features that the language model sees are caught by a hook on the merger."""

    def __init__(self, model: nn.Module):
        self.model, self.head = model, PatchHead(model.config.vision_config.out_hidden_size)
        self.features = torch.empty(0)
        model.model.visual.merger.register_forward_hook(
            lambda module, inputs, output: setattr(self, "features", output)
        )

    def patch_loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Of the features that the last forward pass left behind."""
        num = len(batch["digit"])
        logits, boxes = self.head(self.features.view(num, -1, self.features.shape[-1]))
        covered = batch["digit"] < 10
        naming = F.cross_entropy(logits.flatten(0, 2), batch["digit"].flatten())
        placing = F.smooth_l1_loss(boxes[covered], batch["box"][covered], beta=0.02)
        right = (logits[..., :10].argmax(-1)[covered] == batch["digit"][covered]).float().mean()
        return naming + 5 * placing, {
            "naming": naming.item(),
            "placing": placing.item(),
            "patch_accuracy": right.item(),
        }

    def look(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """The vision tower alone."""
        self.model.model.visual(batch["pixel_values"], grid_thw=torch.tensor([GRID_THW] * len(batch["digit"])))
        return self.patch_loss(batch)

    def talk(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """The whole model. The picture stands at the same place in every row, so one row's M-RoPE positions serve
        all.
        """
        ids, labels = batch["input_ids"], batch["labels"]
        types = (ids == self.model.config.image_token_id).long()
        positions, _ = self.model.model.get_rope_index(
            ids[:1], mm_token_type_ids=types[:1], image_grid_thw=torch.tensor([GRID_THW])
        )
        hidden = self.model.model(
            input_ids=ids,
            pixel_values=batch["pixel_values"],
            image_grid_thw=torch.tensor([GRID_THW] * len(ids)),
            position_ids=positions.expand(-1, len(ids), -1),
            mm_token_type_ids=types,
            use_cache=False,
        ).last_hidden_state[:, :-1]
        answers = labels[:, 1:] != -100
        language = F.cross_entropy(self.model.lm_head(hidden[answers]), labels[:, 1:][answers])
        patches, logs = self.patch_loss(batch)
        return language + 0.5 * patches, {"language": language.item(), **logs}


def run_phase(phase: str, model: nn.Module, lessons: Lessons, steps: int, lr: float, out: Path) -> None:
    """`steps` batches of 'look' or 'talk'; a JSON line on stdout every 50, the weights so far in `out` every 200."""
    teacher = Teacher(model)
    trained, loss_of = (model.model.visual, teacher.look) if phase == "look" else (model, teacher.talk)
    opts = optimizers(trained, teacher.head, lr)
    parameters = [*trained.parameters(), *teacher.head.parameters()]
    batches = iter(DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=8))
    began, recent = time.time(), []
    for step in range(steps):
        for group in (g for opt in opts for g in opt.param_groups):
            group["lr"] = lr * schedule(step, steps if phase == "talk" else math.inf)
        loss, logs = loss_of(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        recent.append(logs)
        if step % 50 == 49:
            means = {key: round(sum(r[key] for r in recent) / len(recent), 4) for key in logs}
            print(
                json.dumps({"phase": phase, "step": step + 1, "seconds": round(time.time() - began), **means}),
                flush=True,
            )
            recent = []
        if step % 200 == 199:
            model.save_pretrained(out)


def pretrain(out: Path, look_steps: int, talk_steps: int, batch_size: int, lr: float, seed: int) -> None:
    """Train both phases and write a Hugging Face folder with bfloat16 weights to `out`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(corpus())
    build_processor(tokenizer).save_pretrained(out)
    model = build_model(tokenizer)
    run_phase("look", model, Lessons(None, batch_size, seed), look_steps, lr, out)
    run_phase("talk", model, Lessons(tokenizer, batch_size, seed + 1), talk_steps, lr, out)
    model.to(torch.bfloat16).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--look-steps", type=int, default=1000)
    parser.add_argument("--talk-steps", type=int, default=1300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pretrain(args.out, args.look_steps, args.talk_steps, args.batch_size, args.lr, args.seed)


if __name__ == "__main__":
    main()
