"""Advantages against numbers made by hand."""

import math

import pytest
import torch

from tasks.rl.advantage import gae, group_advantages, whiten


def test_a_group_is_normalised_by_its_own_mean_and_spread():
    advantages, flat = group_advantages(torch.tensor([[0.0, 1.0, 0.5]]), scale=True)
    torch.testing.assert_close(advantages, torch.tensor([[-1.0, 1.0, 0.0]]), rtol=0, atol=1e-3)
    assert flat.tolist() == [False]
    assert group_advantages(torch.tensor([[0.0, 1.0, 0.5]]), scale=False)[0].tolist() == [[-0.5, 0.5, 0.0]]


def test_an_invalid_reward_is_masked_and_the_others_are_as_without_it():
    advantages, _ = group_advantages(torch.tensor([[0.0, math.nan, 1.0, math.inf]]), scale=True)
    alone, _ = group_advantages(torch.tensor([[0.0, 1.0]]), scale=True)
    assert advantages[0, [1, 3]].tolist() == [0.0, 0.0]
    assert torch.equal(advantages[0, [0, 2]], alone[0])


@pytest.mark.parametrize(
    "rewards",
    [
        pytest.param([0.7, 0.7, 0.7], id="equal"),
        pytest.param([0.1 + 0.2, 0.3, 0.3], id="equal but for rounding"),
        pytest.param([0.50001, 0.5, 0.50002], id="a spread that says nothing"),
        pytest.param([math.nan, 0.5, math.nan], id="one valid"),
        pytest.param([math.nan] * 3, id="none valid"),
    ],
)
def test_a_group_without_spread_is_flat_and_zero(rewards):
    advantages, flat = group_advantages(torch.tensor([rewards]), scale=True)
    assert flat.tolist() == [True]
    assert advantages.tolist() == [[0.0] * 3]


def test_gae_by_hand():
    """gamma 0.5, lambda 0.5. deltas: 1 + 0.5*2 - 1 = 1; 0 + 0.5*3 - 2 = -0.5; 4 + 0 - 3 = 1."""
    advantages = gae(torch.tensor([1.0, 0.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [1 + 0.25 * (-0.5 + 0.25), -0.5 + 0.25, 1.0]


def test_gae_with_lambda_1_is_the_return_less_the_value():
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.25, 0.5, 0.75])
    assert gae(rewards, values, gamma=1.0, lam=1.0).tolist() == [0.75, 0.5, 0.25]


def test_whitened_values_by_hand():
    torch.testing.assert_close(whiten(torch.tensor([1.0, 3.0])), torch.tensor([-1.0, 1.0]))
