"""Logits a chunk at a time: the same numbers and gradients as all of them at once, and never more than a chunk."""

import pytest
import torch

from tasks.rl import logprobs

TOKENS, WIDTH, VOCABULARY, TEMPERATURE = 11, 8, 32, 1.3


class Head(torch.nn.Linear):
    """Notes how many rows of logits are made at once."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(hidden))
        return super().forward(hidden)


def scored(score) -> tuple[list[int], list[torch.Tensor]]:
    """Rows a call, and what comes of `score(head, hidden, targets)`, with the gradients where it has some."""
    torch.manual_seed(0)
    head = Head(WIDTH, VOCABULARY, bias=False)
    head.rows = []
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    found = score(head, hidden, torch.randint(VOCABULARY, (TOKENS,)))
    if not found.requires_grad:
        return head.rows, [found]
    (found * torch.linspace(-1, 2, TOKENS)).sum().backward()
    return head.rows, [found.detach(), hidden.grad, head.weight.grad]


def plain(head, hidden, targets) -> torch.Tensor:
    return (head(hidden) / TEMPERATURE).log_softmax(-1).gather(1, targets[:, None])[:, 0]


def chosen(head, hidden, targets) -> torch.Tensor:
    return logprobs.token_logprobs(head, hidden, targets, TEMPERATURE)


def entropy(head, hidden, targets) -> torch.Tensor:
    return logprobs.token_entropy(head, hidden, TEMPERATURE)


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_chunks_give_the_log_probabilities_and_gradients_of_the_whole(monkeypatch, rows):
    monkeypatch.setattr(logprobs, "CHUNK", rows * VOCABULARY)
    made, parts = scored(chosen)
    assert max(made) == min(rows, TOKENS)
    for part, whole in zip(parts, scored(plain)[1], strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-6)


def test_a_vocabulary_larger_than_a_chunk_goes_row_by_row(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK", VOCABULARY // 2)
    assert max(scored(chosen)[0]) == 1


def test_chunks_give_the_entropy_of_the_whole(monkeypatch):
    _, whole = scored(entropy)
    monkeypatch.setattr(logprobs, "CHUNK", 3 * VOCABULARY)
    made, parts = scored(entropy)
    assert made == [3, 3, 3, 2]
    torch.testing.assert_close(parts[0], whole[0])
