"""Rollouts of unequal prompts together: what each would be alone, token for token; forbidden tokens; seeds."""

import dataclasses

import pytest
import torch

from tasks.models.prefix import pack, use_prefix_attention
from tasks.models.prompts import Pictures
from tasks.models.rollout import Sampling, roll_out
from tasks.rl.logprobs import hidden_states, token_logprobs
from tests.models.families import EOS, FAMILIES, IMAGE, encoded, make_model, make_prompts

GREEDY = Sampling(num_generations=2, max_length=24, temperature=0.0, eos=EOS, forbidden=(IMAGE, 61, 62, 63))
SAMPLED = dataclasses.replace(GREEDY, num_generations=8, temperature=1.5)


def run(model, prompts, sampling, seed=0):
    use_prefix_attention(model)
    pictures = Pictures(model)
    pictures.encode(prompts)
    generator = torch.Generator().manual_seed(seed)
    return roll_out(model, model.get_output_embeddings(), prompts, pictures, sampling, generator)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_together_is_greedy_alone_by_generate(family):
    model = make_model(family)
    together = run(model, make_prompts(family, model), GREEDY)
    for number in range(3):
        inputs = encoded(family, number)
        alone = model.generate(
            **inputs, do_sample=False, max_new_tokens=24, suppress_tokens=list(GREEDY.forbidden), eos_token_id=EOS
        )[0, inputs["input_ids"].shape[1] :]
        for completion in together.completions[2 * number : 2 * number + 2]:
            assert completion.tolist() == alone.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_tokens_carry_the_logprobs_that_the_update_finds(family):
    model = make_model(family)
    prompts = make_prompts(family, model)
    rollout = run(model, prompts, SAMPLED)
    groups = [rollout.completions[8 * n : 8 * n + 8] for n in range(3)]
    pictures = Pictures(model)
    pictures.encode(prompts)
    row = pack([p.input_ids for p in prompts], [p.positions for p in prompts], groups, model.dtype)
    hidden = hidden_states(model, row, pictures.of(prompts))
    logprobs = token_logprobs(model.get_output_embeddings(), hidden, row.targets, SAMPLED.temperature)
    torch.testing.assert_close(torch.cat(rollout.logprobs), logprobs, rtol=0, atol=1e-5)
    logits = model.get_output_embeddings()(hidden) / SAMPLED.temperature
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(torch.cat(rollout.entropy), expected, rtol=0, atol=1e-5)


def test_completions_end_with_their_only_end_of_turn_or_are_cut_and_hold_no_control_token():
    model = make_model("qwen3_vl")
    rollout = run(model, make_prompts("qwen3_vl", model), SAMPLED)
    assert 0 < rollout.ended.sum() < len(rollout.ended)
    for tokens, ended in zip(rollout.completions, rollout.ended.tolist(), strict=True):
        assert (tokens == EOS).sum() == ended
        assert tokens[-1] == EOS if ended else len(tokens) == SAMPLED.max_length
        assert not set(tokens.tolist()) & set(SAMPLED.forbidden)


def test_the_same_seed_gives_the_same_tokens_and_another_does_not():
    model = make_model("qwen2_vl")
    prompts = make_prompts("qwen2_vl", model)
    first, same, other = (run(model, prompts, SAMPLED, seed).completions for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_tokens_are_sampled_by_their_probabilities():
    """A first token of 4096 completions: shares within four standard errors of the model's probabilities."""
    model = make_model("qwen3")
    prompts = make_prompts("qwen3", model, 1)
    sampling = dataclasses.replace(SAMPLED, num_generations=4096, max_length=1)
    rollout = run(model, prompts, sampling)
    shares = torch.cat(rollout.completions).bincount(minlength=64) / 4096
    logits = model(prompts[0].input_ids[None]).logits[0, -1] / sampling.temperature
    logits[list(sampling.forbidden)] = float("-inf")
    expected = logits.softmax(-1)
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / 4096).sqrt() + 1e-6).all()
