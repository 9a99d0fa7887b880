"""Self-training: only right and gold answers are learned from, each once."""

import pytest
import torch

from tasks.graders import Grade
from tasks.graders.batch import InvalidRewards
from tasks.models.prompts import Prompt
from tasks.rl.policy import Group
from tasks.rl.self_training import OnlineSelfTraining, different, gold_tokens, right_samples


def tokens(*ids: int) -> torch.Tensor:
    return torch.tensor(ids)


def group(prompt: int, completions: list, rewards: list) -> Group:
    rewards = torch.tensor(rewards)
    return Group(Prompt(tokens(prompt), tokens(0)[None]), completions, {}, rewards, rewards == 1)


def learned(algorithm, groups) -> list[list[list[int]]]:
    (update,) = algorithm.updates(groups, torch.Generator())
    return [[c.tolist() for c in g.completions] for g in update]


def test_online_learns_the_right_completions_once_and_the_gold_ones():
    algorithm = OnlineSelfTraining(None, None, {(1,): [tokens(9, 9)]})
    a, b, c = tokens(5, 6, 7), tokens(5, 6), tokens(8)
    groups = [group(1, [a, a, b, tokens(9, 9)], [1.0, 1.0, 0.9, 1.0]), group(2, [a, c], [0.5, float("nan")])]
    metrics = algorithm.prepare(groups)
    assert learned(algorithm, groups) == [[[9, 9], [5, 6, 7]]]  # nothing of the second group
    assert metrics == {"right": 0.5, "num_pairs": 2}
    (update,) = algorithm.updates(groups, torch.Generator())
    assert update[0].tokens["weights"].tolist() == torch.tensor([1 / 4] * 2 + [1 / 6] * 3).tolist()
    loss, _ = algorithm.loss(torch.full((5,), -2.0), None, update[0].tokens)
    assert loss.item() == 2  # the mean over answers of their means over tokens


def test_online_makes_no_step_where_nothing_is_right():
    algorithm = OnlineSelfTraining(None, None, {})
    groups = [group(1, [tokens(5)], [0.1])]
    assert algorithm.prepare(groups)["num_pairs"] == 0
    assert list(algorithm.updates(groups, torch.Generator())) == []


def test_samples_that_are_gold_or_stand_twice_are_left_out():
    texts = ["3 + 4 = 7", "3  +  4 = 7", "4 + 3 = 7", "8 - 1 = 7", "9 - 2 = 7"]
    assert different(texts, ["8 - 1 = 7"], most=2) == ["3 + 4 = 7", "4 + 3 = 7"]


def test_offline_keeps_right_samples_only(make_job, monkeypatch):
    job = make_job("offline_st")
    gold = job.coordinates.write(job.train[0])[0]
    told = gold.replace("<think>", "<think>so ")
    samples = job.params.rft.self_training.samples
    answers = {0: [told, told, gold, "nonsense"] + [""] * (samples - 4)}
    monkeypatch.setattr(
        "tasks.rl.self_training.answer",
        lambda *args, **kwargs: [t for n in range(len(job.train)) for t in answers.get(n, [""] * samples)],
    )
    assert right_samples(job, None) == [(job.train[0], told)]


def test_offline_stops_where_nobody_grades(make_job, monkeypatch):
    job = make_job("offline_st")
    monkeypatch.setattr("tasks.rl.self_training.answer", lambda *args, **kwargs: [""] * (len(job.train) * samples))
    samples = job.params.rft.self_training.samples
    job.grader = lambda text, question: Grade(0.0, {}, None, invalid="model_grader_server: down")
    with pytest.raises(InvalidRewards, match="model_grader_server: down"):
        right_samples(job, None)


def test_gold_answers_are_those_that_the_chat_template_makes(make_job, monkeypatch):
    """Qwen3's writes thinking on lines of its own."""
    job = make_job("online_st")
    tokenizer, text = job.processor.tokenizer, "{{ part['text'] }}"
    template = job.processor.chat_template.replace(text, "{{ part['text'] | replace('<think>', '<think> ') }}")
    job.processor.chat_template = tokenizer.chat_template = template
    spaced = job.coordinates.write(job.train[0])[0].replace("<think>", "<think> ")
    learned = {tokenizer.decode(ids) for answers in gold_tokens(job).values() for ids in answers}
    assert spaced + tokenizer.eos_token in learned
    samples = job.params.rft.self_training.samples
    monkeypatch.setattr("tasks.rl.self_training.answer", lambda *args, **kwargs: [spaced] * samples * len(job.train))
    assert all(question is not job.train[0] for question, _ in right_samples(job, None))


def test_gold_answers_are_found_by_their_prompt_and_end_their_turn(make_job):
    job = make_job("online_st")
    eos = job.processor.tokenizer.eos_token_id
    found = gold_tokens(job)
    assert sum(map(len, found.values())) == len(job.train)
    assert all(ids[-1] == eos for answers in found.values() for ids in answers)
