"""What would train something else than the model answers with is refused before the first step."""

import os
import re
import time

import pytest
import torch

from tasks.rl import memory, preflight
from tasks.rl.grpo import Grpo
from tasks.rl.policy import Group
from tasks.rl.trainer import Trainer


def check(trainer: Trainer) -> None:
    preflight.check(trainer.policy, trainer.job, trainer.prompt(0))


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"beta": 0.04}], ids=["policy", "with a reference"])
def test_the_shipped_model_passes_in_seconds_and_its_memory_is_told(make_job, capsys, settings):
    trainer, began = Trainer(make_job(**settings), Grpo), time.process_time()
    check(trainer)
    assert time.process_time() - began < 10
    line = re.search(r"^memory: about (.+) of .+ GB \((.+)\)$", capsys.readouterr().err, re.MULTILINE)
    parts = {name: float(size) for name, size in re.findall(r"(\w[\w ]+) ([0-9.]+)", line[2])}
    assert float(line[1]) == pytest.approx(sum(parts.values()), abs=0.03)
    assert (parts["reference"] > 0) == bool(settings["beta"])


def test_the_activations_told_are_those_of_a_full_micro_batch(make_job):
    trainer = Trainer(make_job(), Grpo)
    prompts = [trainer.prompt(n) for n in range(4)]
    completions = [torch.randint(20, 90, (48,)) for _ in range(4)]
    groups = [Group(prompt, completions, {}) for prompt in prompts]
    trainer.params = trainer.params.model_copy(update={"micro_batch_tokens": sum(group.size for group in groups)})
    trainer.job.params = trainer.job.params.model_copy(update={"rft": trainer.params})
    told = memory.estimate(trainer.policy, trainer.job, prompts[0], completions[0])["activations"]
    tower = memory.saved_bytes(trainer.policy, lambda: trainer.policy.pictures.encode(prompts))
    row = memory.saved_bytes(trainer.policy, lambda: trainer.policy.score(groups))
    assert told == pytest.approx((tower + row) / 1e9, rel=0.25)


def test_a_rollout_keeps_of_the_tower_what_is_told(make_job):
    """In half precision its activations are recomputed, those that wait for the first update too."""
    job = make_job()
    model = job.params.model.model_copy(update={"dtype": "bfloat16"})
    job.params = job.params.model_copy(update={"model": model})
    trainer, kept = Trainer(job, Grpo), []
    policy, prompt, encode = trainer.policy, trainer.prompt(0), trainer.policy.pictures.encode
    policy.pictures.encode = lambda prompts: kept.append(memory.saved_bytes(policy, lambda: encode(prompts)))
    memory.estimate(policy, job, prompt, torch.arange(20, 24))
    trainer.roll_out([prompt])
    assert len(kept) == 2 and kept[0] == kept[1] > 0
    assert not trainer.model.training


def test_the_copies_of_mixed_precision_are_told_apart_from_activations(make_job, monkeypatch):
    """They do not grow with a micro-batch."""
    job, told = make_job(), {}
    for compute in (None, "bfloat16"):
        model = job.params.model.model_copy(update={"compute": compute})
        job.params = job.params.model_copy(update={"model": model})
        trainer = Trainer(job, Grpo)
        prompt, completion = trainer.prompt(0), torch.arange(20, 68)
        told[compute] = memory.estimate(trainer.policy, job, prompt, completion)
    assert told["bfloat16"]["copies in half precision"] == pytest.approx(told[None]["weights"] / 2)
    assert told["bfloat16"]["keys and values"] == told[None]["keys and values"] / 2
    assert told["bfloat16"]["activations"] < 0.7 * told[None]["activations"]
    group, policy = Group(prompt, [completion], {}), trainer.policy
    without = memory.saved_bytes(policy, lambda: policy.score([group]))
    monkeypatch.setattr(memory, "_is_copy", lambda *_: False)
    with_copies = memory.saved_bytes(policy, lambda: policy.score([group]))
    assert with_copies - without == policy.head.weight.numel() * 2  # those of the layers are recomputed


def test_a_run_that_does_not_fit_is_refused(make_job, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda held: 0.001)
    with pytest.raises(preflight.PreflightError, match=r"of 0\.0 GB .* give model\.lora, or lower"):
        check(Trainer(make_job(), Grpo))


def test_what_is_there_is_what_is_free_within_the_limit_of_the_control_group(tmp_path, monkeypatch):
    free, total = memory.available(0.0), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    assert 0 < free <= total
    own, group = tmp_path / "cgroup", tmp_path / "groups" / "user" / "run"
    group.mkdir(parents=True)
    own.write_text("1:cpu:/elsewhere\n0::/user/run\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_CGROUP", own)
    assert memory.available(2 * total) > 2 * total  # what the run holds already is not taken twice
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("50000000\n")
    assert memory.available(2.0) == 0.05


def test_other_positions_than_the_models_own_are_refused(make_job, monkeypatch):
    trainer = Trainer(make_job(), Grpo)
    inner = trainer.policy.base.model
    own = inner.get_rope_index

    def shifted(*args, **kwargs):
        positions, deltas = own(*args, **kwargs)
        return positions * 2, deltas

    monkeypatch.setattr(inner, "get_rope_index", shifted)
    prompt = trainer.prompt(0)
    monkeypatch.setattr(inner, "get_rope_index", own)
    with pytest.raises(preflight.PreflightError, match=r"take rft\.engine trl"):
        preflight.check(trainer.policy, trainer.job, prompt)


def test_a_picture_that_changes_nothing_is_refused(make_job):
    trainer = Trainer(make_job(), Grpo)
    tower = trainer.policy.base.model.visual
    with torch.no_grad():
        for merger in (tower.merger, *tower.deepstack_merger_list):
            merger.linear_fc2.weight.zero_()
    with pytest.raises(preflight.PreflightError, match="changes nothing"):
        check(trainer)
