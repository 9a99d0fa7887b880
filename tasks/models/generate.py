"""Answers to questions: the same code answers in validation, in grading and in the user's hands.

They are made by the rollout of RFT, for which a picture is encoded once for all questions about it and a prompt read
once for all of its samples, and which goes on with unfinished answers alone. Families that no test compares with
transformers' `generate`, and attentions that have no shared prefix, go through `generate`, batches padded on the left.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from tasks.data.questions import messages
from tasks.data.records import Question
from tasks.models.adapters import without_adapter
from tasks.models.loading import tokenizer_of
from tasks.models.precision import is_mixed, precision
from tasks.models.prefix import ATTENTION, prefix_attention
from tasks.models.prompts import Pictures, make_prompt
from tasks.models.rollout import Sampling, roll_out
from tasks.params import Prompt

# tests/models/test_rollout.py: greedy completions equal those of `generate`, token for token
COMPARED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "qwen3", "llama")


def control_tokens(processor: ProcessorMixin) -> list[int]:
    """Tokens that an answer must never hold (`<|image_pad|>`, `<|im_start|>`, ...): every special one but the end of
    turn, those too that the tokenizer has no role for (Llama 3's `<|start_header_id|>`).
    """
    tokenizer = tokenizer_of(processor)
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted({*tokenizer.all_special_ids, *added} - {tokenizer.eos_token_id})


def encode(
    processor: ProcessorMixin,
    prompt: Prompt,
    questions: Sequence[Question],
    pool: Path,
    completions: Sequence[str] | None = None,
) -> dict[str, torch.Tensor]:
    """A left-padded batch: input_ids and attention_mask (B, T) and, of pictures, what the family's tower takes:
    pixel_values with image_grid_thw (Qwen-VL) or pixel_attention_mask (SmolVLM). With `completions` each prompt is
    followed by its own.
    """
    texts = [
        processor.apply_chat_template(messages(prompt, q), add_generation_prompt=True, tokenize=False) + completion
        for q, completion in zip(questions, completions or [""] * len(questions), strict=True)
    ]
    pictures = [[Image.open(pool / q.image).convert("RGB")] for q in questions if q.image is not None]
    images = {"images": pictures} if pictures else {}
    return processor(text=texts, **images, padding=True, padding_side="left", return_tensors="pt")


@torch.no_grad()
def answer(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    prompt: Prompt,
    questions: Sequence[Question],
    pool: Path,
    batch_size: int,
    max_new_tokens: int,
    progress: str | None = None,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
) -> list[str]:
    """The completion of each question, greedy; or at a `temperature` its `samples` completions, one after the other,
    drawn from what the model says: the penalties and cuts of its own generation config are off, as they are in RFT's
    rollouts. `batch_size` counts completions. `progress` names a bar on a terminal. The training mode is kept.
    """
    tokenizer, base = tokenizer_of(processor), without_adapter(model)
    sampling = Sampling(
        samples, max_new_tokens, temperature, tokenizer.eos_token_id, tuple(control_tokens(processor))
    )  # fmt: skip
    shared = base.config.model_type in COMPARED and base.config._attn_implementation in ("sdpa", ATTENTION)
    complete, generator = _rolled_out if shared else _generated, torch.Generator().manual_seed(seed)
    training, completions = model.training, []
    model.eval()
    each = max(1, batch_size // samples)
    for start in tqdm(range(0, len(questions), each), desc=progress, disable=None if progress else True):
        batch = questions[start : start + each]
        with precision(base) if is_mixed(base) else nullcontext():
            tokens = complete(base, processor, prompt, batch, pool, sampling, generator)
        completions += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    model.train(training)
    return completions


def _rolled_out(base, processor, prompt, questions, pool, sampling, generator) -> list[torch.Tensor]:
    encoded = (encode(processor, prompt, [question], pool) for question in questions)
    prompts = [make_prompt(base, one, picture=q.image) for one, q in zip(encoded, questions, strict=True)]
    pictures = Pictures(base, frozen=True)
    with prefix_attention(base):
        pictures.encode(prompts)
        return roll_out(base, base.get_output_embeddings(), prompts, pictures, sampling, generator).completions


def _generated(base, processor, prompt, questions, pool, sampling, generator) -> torch.Tensor:
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
    batch = encode(processor, prompt, [q for q in questions for _ in range(sampling.num_generations)], pool)
    with torch.random.fork_rng():
        torch.manual_seed(torch.randint(2**31, (), generator=generator).item())
        output = base.generate(
            **{key: value.to(base.device) for key, value in batch.items()},
            **(drawn if sampling.temperature else {"do_sample": False}),
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=sampling.max_length,
            suppress_tokens=list(sampling.forbidden),
            pad_token_id=tokenizer_of(processor).pad_token_id,
            eos_token_id=sampling.eos,
        )
    return output[:, batch["input_ids"].shape[1] :]
