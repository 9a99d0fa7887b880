"""Answers to questions, in left-padded batches: the same code answers in validation, in grading and in the user's
hands.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from tasks.data.questions import messages
from tasks.data.records import Question
from tasks.models.loading import tokenizer_of
from tasks.params import Prompt


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
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: Prompt,
    questions: Sequence[Question],
    pool: Path,
    batch_size: int,
    max_new_tokens: int,
    progress: str | None = None,
    temperature: float = 0.0,
) -> list[str]:
    """The completion of each question, greedy or sampled at `temperature` from what the model says: the penalties and
    cuts of its own generation config are off, as they are in RFT's rollouts. `progress` names a bar on a terminal. The
    model's training mode is kept.
    """
    training, tokenizer = model.training, tokenizer_of(processor)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    sampling |= {"top_p": 1.0, "repetition_penalty": 1.0}
    model.eval()
    completions: list[str] = []
    starts = range(0, len(questions), batch_size)
    for start in tqdm(starts, desc=progress, disable=None if progress else True):
        batch = encode(processor, prompt, questions[start : start + batch_size], pool)
        output = model.generate(
            **{key: value.to(model.device) for key, value in batch.items()},
            **sampling,
            max_new_tokens=max_new_tokens,
            suppress_tokens=control_tokens(processor),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        completions += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train(training)
    return completions
