"""What a run is said to have used."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tasks.models.budget import Budget, Matched, peak_memory


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


@pytest.mark.parametrize(("trained", "flops"), [(10, 8 * 60 + 150 * 20), (1, 8 * 42 + 150 * 20)])
def test_flops_are_six_a_parameter_and_token_trained_and_two_read(trained, flops):
    """With an adapter the frozen parameters need no gradient of their own."""
    budget = Budget(1, 5, 3, 30, 70, tokens_scored=50)
    assert budget.row(Model(trained))["flops"] == flops


def test_the_peak_is_what_this_process_has_held():
    held = torch.ones(20_000_000)
    assert held.nbytes < peak_memory() < 1e12


def ran(folder: Path, **history) -> Path:
    folder.mkdir()
    (folder / "history.json").write_text(json.dumps({"steps": [{"step": 1}], **history}))
    return folder


def matched(tmp_path: Path, mode: str, rft: dict) -> Matched:
    warmup = ran(tmp_path / "warmup", budget={"gradient_steps": 5, "flops": 800.0})
    return Matched(mode, warmup, ran(tmp_path / "rft", **rft))


def test_the_budget_to_match_is_what_the_warm_up_and_rft_have_spent(tmp_path):
    """Ten examples of 4 tokens are an epoch of 2 batches: 8 and 2 examples, 10 x 4 x 60 FLOPs."""
    told = {"budget": {"gradient_steps": 48, "flops": 9 * 2400.0 - 800}}
    steps = matched(tmp_path, "steps", told)
    assert steps.num_steps(Model(), [4] * 10, batch_size=8) == 53
    flops = Matched("flops", steps.warmup, steps.rft)
    assert flops.num_steps(Model(), [4] * 10, batch_size=8) == 18
    assert flops.num_steps(Model(trained=1), [4] * 10, batch_size=8) == round(9 * 60 / 42 * 2)  # with an adapter


def test_a_warm_up_of_no_steps_has_spent_nothing(tmp_path):
    found = matched(tmp_path, "steps", {"budget": {"gradient_steps": 48}})
    (found.warmup / "history.json").write_text('{"steps": []}')
    assert found.budget == 48


def test_a_run_that_counted_nothing_cannot_be_matched(tmp_path):
    with pytest.raises(ValueError, match=r"rft/history.json tells no budget .* grid.matched data"):
        matched(tmp_path, "flops", {}).budget  # noqa: B018
