"""What a run is said to have used."""

from types import SimpleNamespace

import pytest
import torch

from tasks.models.budget import Budget, peak_memory


class Model(torch.nn.Module):
    """10 parameters outside the embeddings, `trained` of them learning."""

    def __init__(self, trained: int = 10):
        super().__init__()
        self.trained = trained

    def num_parameters(self, only_trainable: bool, exclude_embeddings: bool) -> int:
        return self.trained if only_trainable else 10

    def forward(self, **batch):
        return SimpleNamespace(loss=0.0)


def batch() -> dict[str, torch.Tensor]:
    """Two rows of 5 and 3 tokens; the last 2 and 1 are the completions."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    labels = torch.tensor([[-100, -100, -100, 7, 8], [-100, -100, -100, -100, 9]])
    return {"attention_mask": mask, "labels": labels}


def test_supervised_batches_are_counted_and_nothing_else():
    model, budget = Model(), Budget()
    budget.watch(model)
    model(**batch())
    model(**batch())
    model(attention_mask=batch()["attention_mask"])  # no labels: not trained on
    model.eval()
    model(**batch())  # validation
    assert budget == Budget(gradient_steps=2, prompt_tokens_trained=10, completion_tokens_trained=6)


@pytest.mark.parametrize(("trained", "flops"), [(10, 8 * 60 + 100 * 20), (1, 8 * 42 + 100 * 20)])
def test_flops_are_six_a_parameter_and_token_trained_and_two_sampled(trained, flops):
    """With an adapter the frozen parameters need no gradient of their own."""
    budget = Budget(1, 5, 3, 30, 70)
    assert budget.row(Model(trained))["flops"] == flops


def test_the_peak_is_what_this_process_has_held():
    held = torch.ones(20_000_000)
    assert held.nbytes < peak_memory() < 1e12
