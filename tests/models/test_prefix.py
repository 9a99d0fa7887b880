"""Shared prefixes against the plain path, one row a completion: log-probabilities and every parameter's gradient."""

import pytest
import torch

from tasks.models.prefix import pack, use_prefix_attention
from tasks.models.prompts import Pictures
from tasks.rl.logprobs import hidden_states, token_logprobs
from tests.models.families import FAMILIES, TEXT_FAMILIES, encoded, make_model, make_prompts

LENGTHS = ((5, 1, 7), (2, 9), (4, 4, 3))
TEMPERATURE = 1.3


def make_completions() -> list[list[torch.Tensor]]:
    torch.manual_seed(1)
    return [[torch.randint(2, 50, (n,)) for n in lengths] for lengths in LENGTHS]


def plain_logprobs(model, family: str, completions) -> torch.Tensor:
    """Each prompt with each of its completions in a row of its own, by the model's own positions and masks."""
    found = []
    for number, group in enumerate(completions):
        for completion in group:
            inputs = encoded(family, number)
            prefix = inputs["input_ids"]
            inputs["input_ids"] = torch.cat([prefix, completion[None]], dim=1)
            if "mm_token_type_ids" in inputs:
                types = inputs["mm_token_type_ids"]
                inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(1, len(completion))], dim=1)
            logits = model(**inputs, use_cache=False).logits[0, prefix.shape[1] - 1 : -1] / TEMPERATURE
            found.append(logits.log_softmax(-1).gather(1, completion[:, None])[:, 0])
    return torch.cat(found)


def shared_logprobs(model, family: str, completions, splits=((0, 1, 2),)) -> torch.Tensor:
    """`splits`: which prompts go into a row together."""
    prompts = make_prompts(family, model, len(completions))
    pictures = Pictures(model)
    pictures.encode(prompts)
    found = []
    for numbers in splits:
        some = [prompts[n] for n in numbers]
        row = pack(
            [p.input_ids for p in some], [p.positions for p in some], [completions[n] for n in numbers], model.dtype
        )
        hidden = hidden_states(model, row, pictures.of(some))
        found.append(token_logprobs(model.get_output_embeddings(), hidden, row.targets, TEMPERATURE))
    logprobs = torch.cat(found)
    weighted(logprobs).backward()
    pictures.backward()
    return logprobs


def weighted(logprobs: torch.Tensor) -> torch.Tensor:
    return (logprobs * torch.linspace(-1, 2, len(logprobs))).sum()


@pytest.mark.parametrize("splits", [((0, 1, 2),), ((0,), (1, 2))], ids=["one row", "two rows"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_changes_neither_logprobs_nor_gradients(family, splits):
    completions = make_completions()
    plain, shared = make_model(family), make_model(family)
    expected = plain_logprobs(plain, family, completions)
    weighted(expected).backward()
    use_prefix_attention(shared)
    logprobs = shared_logprobs(shared, family, completions, splits)
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-5)
    others = dict(shared.named_parameters())
    assert any("vis" in name for name in others) == (family not in TEXT_FAMILIES)
    for name, parameter in plain.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 0, name
        if family == "smolvlm" and "vision" in name and name.endswith("k_proj.bias"):
            assert scale < 1e-6  # without rotation it adds the same to every score, so its gradient is rounding alone
            continue
        assert (others[name].grad - parameter.grad).abs().max() <= 1e-5 * scale.clamp(min=1e-3), name
