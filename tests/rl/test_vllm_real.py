"""Rollouts by a real vLLM on the shipped model. Slow, and skipped where vLLM is not installed, or where VLLM_ADDRESS is
not that of a server (docs/vllm.md): `VLLM_ADDRESS=http://127.0.0.1:8123 pytest -m slow -s tests/rl/test_vllm_real.py`.
"""

import dataclasses
import os
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.models.rollout import roll_out
from tasks.rl.grpo import Grpo
from tasks.rl.trainer import Trainer
from tasks.rl.vllm import sampling_params
from tasks.rl.vllm_engines import Request, Server, serve_command
from tasks.schema.vllm import Colocated
from tasks.schema.vllm import Server as ServerParams

pytestmark = pytest.mark.slow
# vLLM cannot sleep on a CPU
COLOCATED = {"mode": "colocated", "memory_share": 0.2, "sleep": False, "max_importance": 2.0}
SERVER = {"mode": "server", "address": os.environ.get("VLLM_ADDRESS", ""), "sleep": False, "max_importance": 2.0}


@pytest.fixture(scope="module", params=["colocated", "server"])
def trainer(make_job, request):
    """One trainer for all tests of a mode: a process holds one vLLM. Eagerly: compiling takes minutes on a CPU."""
    if request.param == "server":
        if not SERVER["address"]:
            pytest.skip("VLLM_ADDRESS is not set: docs/vllm.md says how to start a server")
        yield Trainer(make_job(num_generations=8, vllm=ServerParams.model_validate(SERVER)), Grpo)
        return
    vllm = pytest.importorskip("vllm")
    job = make_job(num_generations=8, vllm=Colocated.model_validate(COLOCATED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm, "LLM", partial(vllm.LLM, enforce_eager=True, max_num_seqs=32))
        yield Trainer(job, Grpo)


def by_vllm(trainer, prompts, sampling, seed=0):
    with torch.no_grad():
        trainer.policy.pictures.encode(prompts)
    return trainer.vllm.roll_out(trainer.policy, prompts, sampling, torch.Generator().manual_seed(seed))


def prompts_of(trainer, num):
    return [trainer.prompt(number) for number in range(num)]


def test_greedy_completions_are_ours_token_for_token(trainer):
    prompts, sampling = (
        prompts_of(trainer, 8),
        dataclasses.replace(trainer.sampling, temperature=0.0, num_generations=1),
    )
    theirs = by_vllm(trainer, prompts, sampling)
    policy = trainer.policy
    ours = roll_out(policy.base, policy.head, prompts, policy.pictures, sampling, torch.Generator())
    same = [a.tolist() == b.tolist() for a, b in zip(ours.completions, theirs.completions, strict=True)]
    print("greedy equal:", sum(same), "of", len(same), "completions,", sum(map(len, ours.completions)), "tokens")
    assert all(same)


def test_the_same_seed_samples_the_same_tokens_and_the_policy_finds_their_logprobs(trainer):
    prompts = prompts_of(trainer, 4)
    first, same, other = (by_vllm(trainer, prompts, trainer.sampling, seed) for seed in (3, 3, 4))
    assert [c.tolist() for c in first.completions] == [c.tolist() for c in same.completions]
    assert [c.tolist() for c in first.completions] != [c.tolist() for c in other.completions]
    assert len({tuple(c.tolist()) for c in first.completions}) > 4
    assert not set(torch.cat(first.completions).tolist()) & set(trainer.sampling.forbidden)
    difference = (torch.cat(first.logprobs) - torch.cat(first.sampled)).abs()
    print("mismatch, mean and greatest:", difference.mean().item(), difference.max().item(), "of", len(difference))
    assert difference.mean() < 1e-4 and difference.max() < 1e-2  # forbidden tokens: a few thousandths of a nat


def test_a_step_learns_and_the_next_rollout_is_of_the_changed_weights(trainer):
    prompts = prompts_of(trainer, 4)
    for group in trainer.optimizer.param_groups:
        group["highest"] = 1e-3
    before = by_vllm(trainer, prompts, trainer.sampling)
    first, second = trainer.step(), trainer.step()
    print(
        [
            {n: v for n, v in m.items() if "mism" in n or "importance" in n or n in ("loss", "reward", "grad_norm")}
            for m in (first, second)
        ]
    )
    after = by_vllm(trainer, prompts, trainer.sampling)
    assert [c.tolist() for c in before.completions] != [c.tolist() for c in after.completions]
    for metrics in (first, second):
        assert metrics["mismatch"] < 1e-4
        assert metrics["grad_norm"] > 0


def test_the_servers_request_and_command_are_what_this_vllm_takes(trainer, monkeypatch):
    """By its own schema and parser."""
    pytest.importorskip("vllm")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    server, sent = Server.__new__(Server), {}
    server._model = "models/tiny"
    answer = {"choices": [], "prompt_token_ids": []}
    monkeypatch.setattr(Server, "_post", lambda self, path, body: sent.update(body) or answer)
    server._generate(Request([3, 5, 4], Image.new("RGB", (8, 8)), sampling_params(trainer.sampling, 7)))
    taken = GenerateRequest.model_validate(sent)
    assert taken.sampling_params.logit_bias[5] == -100.0 and taken.sampling_params.n == 8
    rft = trainer.params.model_copy(
        update={"vllm": ServerParams(mode="server", address="http://127.0.0.1:8000", sleep=True, max_importance=2.0)}
    )
    command = serve_command(trainer.job.params.model_copy(update={"rft": rft}), Path("served"))
    words = shlex.split(command.partition("vllm serve ")[2])
    taken = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    assert (taken.model_tag, taken.port, taken.enable_scale_out) == ("served", 8000, True)
    assert taken.served_model_name == ["models/tiny"] and taken.limit_mm_per_prompt["image"]
