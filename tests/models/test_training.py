"""The training stages, a few steps each on the shipped model: they learn, keep the best on val, leave a folder."""

import copy
import dataclasses
import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState

from tasks import rft, sft
from tasks.data.records import read_questions
from tasks.graders import make_grader
from tasks.graders.rubric import Grade
from tasks.graders.target import targets
from tasks.models import preflight
from tasks.models.budget import Matched
from tasks.models.loading import load_model
from tasks.models.training import Job
from tasks.models.validation import Best, Validation, trainable
from tasks.params import load_params
from tests.models.test_adapters import moved


def job(data, policy: str, init: Path | None = None, **sections) -> Job:
    params = load_params()
    changed = {name: getattr(params, name).model_copy(update=values) for name, values in sections.items()}
    return Job(params.model_copy(update=changed), policy, data / "pool", data / "slice", init, 0)


def test_sft_lowers_its_loss_and_writes_a_folder_that_loads(data, tmp_path):
    run = job(data, "sft", sft={"steps": 12, "eval_steps": 6, "learning_rate": 3e-4})
    sft.train(run, run.params.sft, tmp_path / "sft")
    history = json.loads((tmp_path / "sft" / "history.json").read_text())
    losses = [row["loss"] for row in history["steps"]]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert [point["step"] for point in history["val"]] == [0, 6, 12]
    tokens = run.processor.tokenizer
    answers = [len(tokens(targets(q)[0]).input_ids) for q in run.train]  # without the end of the turn
    budget = history["budget"]
    assert budget["gradient_steps"] == 12
    per_answer = budget["completion_tokens_trained"] / (12 * run.params.sft.batch_size)
    assert min(answers) < per_answer < max(answers) + 3
    assert budget["prompt_tokens_trained"] > 0 and budget["completion_tokens_sampled"] == 0
    assert history["model"]["lora"] is None and history["prompt"] == run.params.prompt.model_dump()
    assert history["best_step"] == max(history["val"], key=lambda p: (p["reward"], -p["step"]))["step"]
    assert load_model(run.params.model, tmp_path / "sft").num_parameters() == run.load().num_parameters()


def test_sft_spends_the_flops_of_an_rft_run(data, tmp_path):
    """As many as are told, but for the last example; by steps that params.yaml does not name."""
    run = job(data, "sft", sft={"steps": 80, "eval_steps": 50, "batch_size": 4})
    for name, flops in {"warmup": 1e9, "grpo": 4e10}.items():
        (tmp_path / name).mkdir()
        budget = {"gradient_steps": 3, "flops": flops}
        (tmp_path / name / "history.json").write_text(json.dumps({"steps": [{"step": 1}], "budget": budget}))
    run.matched = Matched("flops", tmp_path / "warmup", tmp_path / "grpo")
    sft.train(run, run.params.sft, tmp_path / "sft")
    history = json.loads((tmp_path / "sft" / "history.json").read_text())
    assert history["budget"]["gradient_steps"] == len(history["steps"]) < 80
    assert history["budget"]["flops"] == pytest.approx(4.1e10, rel=0.1)
    assert f"--matched flops --warmup {tmp_path / 'warmup'}" in (tmp_path / "sft" / "README.md").read_text()


def test_the_tokens_of_an_example_are_those_that_it_is_trained_on(data, tmp_path):
    """An epoch of it: so the FLOPs that SFT is given are those that it counts, but for a template's last newline."""
    run = job(data, "sft", sft={"steps": None, "epochs": 1.0, "eval_steps": 50})
    told = sum(sft.num_tokens(run, run.gold_pairs()))
    sft.train(run, run.params.sft, tmp_path / "sft")
    counted = json.loads((tmp_path / "sft" / "history.json").read_text())["budget"]
    trained = counted["prompt_tokens_trained"] + counted["completion_tokens_trained"]
    assert 0 <= trained - told <= len(run.gold_pairs())


def test_epochs_are_passes_over_the_slice():
    warmup = load_params().warmup.model_copy(update={"steps": None, "epochs": 1.5, "batch_size": 8})
    assert [warmup.num_steps(n) for n in (1, 16, 17)] == [1, 3, 4]


@pytest.mark.slow
def test_sft_in_mixed_precision_learns_in_float32_what_it_learns_in_full(data, tmp_path):
    """At a rate that bfloat16 weights would round away."""
    losses, moved = {}, {}
    for compute in (None, "bfloat16"):
        run = job(data, "sft", sft={"steps": 2, "eval_steps": 2, "learning_rate": 1e-6}, model={"compute": compute})
        run._score = lambda model: {"reward": float(model is not None)}
        model = run.load()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        steps, pairs = run.params.sft, run.gold_pairs()
        rows = sft.fit(run, model, pairs, steps, 2, steps.batch_size, run.validation(2))
        losses[compute] = [row["loss"] for row in rows]
        assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
        moved[compute] = max((value - before[n]).abs().max().item() for n, value in model.state_dict().items())
    assert losses["bfloat16"] == pytest.approx(losses[None], rel=0.02)
    assert losses["bfloat16"] != losses[None]
    assert 0 < moved["bfloat16"] < 3e-6


def test_zero_warmup_steps_give_the_base_model_itself(data, tmp_path):
    run = job(data, "warmup", warmup={"steps": 0, "epochs": None})
    sft.train(run, run.params.warmup, tmp_path / "warmup")
    base, same = run.load().state_dict(), load_model(run.params.model, tmp_path / "warmup").state_dict()
    assert all(torch.equal(base[name], same[name]) for name in base)


def test_grpo_changes_the_weights_and_logs_its_curves(data, tmp_path):
    small = {"steps": 2, "eval_steps": 2, "prompts_per_step": 4, "num_generations": 4}
    run = job(data, "grpo", rft={**small, "beta": 0.01, "warmup_steps": 0})
    model, validation, logs = rft.ENGINES["trl", "grpo"](run)
    base = run.load().state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in model.state_dict().items())
    run.save(model, tmp_path / "grpo", validation, logs)
    history = json.loads((tmp_path / "grpo" / "history.json").read_text())
    assert [row["step"] for row in history["steps"]] == [1, 2]
    assert {"reward", "kl", "completion_length", "zero_variance"} <= set(history["steps"][0])


def test_a_step_of_trl_is_a_rollout_however_few_the_questions(data, monkeypatch):
    """Two steps of two updates, validated after each, of 3 questions where a step takes 4."""
    small = {"steps": 2, "eval_steps": 1, "prompts_per_step": 4, "num_generations": 2, "max_completion_length": 8}
    run = job(data, "grpo", rft={**small, "num_iterations": 2, "warmup_steps": 0, "beta": 0.01, "learning_rate": 1e-3})
    run.train, asked = run.train[:3], []

    def grader(text, question) -> Grade:
        asked.append(question.record_id)
        return Grade(reward=len(asked) % 2, sub_rewards={"turn": 1.0}, failure=None)

    monkeypatch.setattr(preflight, "check", lambda *_: None)  # which this grader would not pass
    run.grader, run._score = grader, lambda model: {"reward": 0.5}
    model, validation, logs = rft.ENGINES["trl", "grpo"](run)
    assert [row["step"] for row in logs] == [1, 2] and all("kl" in row and "reward" in row for row in logs)
    assert [point["step"] for point in validation.curve] == [0, 1, 2]
    assert len(asked) >= 2 * 4 * 2 and set(asked) == {question.record_id for question in run.train}
    base = run.load().state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in model.state_dict().items())


def test_lora_is_merged_into_a_plain_folder(data, tmp_path):
    run = job(data, "sft", sft={"steps": 2, "eval_steps": 1, "learning_rate": 1e-3})
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
    model = run.params.model.model_validate({**run.params.model.model_dump(), "lora": lora})
    run.params = run.params.model_copy(update={"model": model})
    sft.train(run, run.params.sft, tmp_path / "lora")
    assert not list((tmp_path / "lora").glob("adapter*"))
    merged = load_model(run.params.model, tmp_path / "lora").state_dict()
    assert set(merged) == set(load_model(run.params.model).state_dict())


def test_every_checkpoint_that_is_kept_holds_the_adapter_it_was_trained_on(data, tmp_path):
    """As the policy beside it does: without SFT's adapter, RFT's is another model's."""
    run = job(data, "sft")
    lora = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear", "output": "adapter"}
    params = run.params.model.model_validate({**run.params.model.model_dump(), "lora": lora})
    run.params = run.params.model_copy(update={"model": params})
    run.save(moved(run.load()), tmp_path / "sft", None, [])
    run = dataclasses.replace(run, policy="grpo", init=tmp_path / "sft")
    model, ids = moved(run.load()), torch.arange(20, 40)[None]
    validation = run.validation(1, keep=2)
    validation.best = [Best(1, 1.0, {name: p.detach().clone() for name, p in trainable(model).items()})]
    logits = model(input_ids=ids).logits
    run.save(model, tmp_path / "grpo", validation, [])
    for folder in (tmp_path / "grpo", tmp_path / "grpo" / "checkpoints" / "step-1"):
        read = load_model(params, folder)
        torch.testing.assert_close(read(input_ids=ids).logits, logits, rtol=0, atol=1e-4)


def test_sft_targets_score_the_top_with_the_grader_that_rewards(data):
    grade = make_grader(load_params().reward)
    for q in read_questions(data / "slice" / "train.jsonl"):
        assert grade(targets(q)[0], q).reward > 0.99  # coordinates are rounded to thousandths


def test_validation_keeps_the_best_weights_and_stops_when_patience_is_out():
    layer = torch.nn.Linear(1, 1, bias=False)
    rewards = iter([0.1, 0.5, 0.3, 0.2])
    validation = Validation("test", lambda model: {"reward": next(rewards)}, every=1, patience=2)
    state, control = TrainerState(max_steps=10), TrainerControl()
    validation.on_train_begin(None, state, control, model=layer)
    for step in (1, 2, 3):
        with torch.no_grad():
            layer.weight.fill_(step)
        state.global_step = step
        validation.on_step_end(None, state, control, model=layer)
        assert control.should_training_stop == (step == 3)
    validation.restore(layer)
    assert (validation.best_step, layer.weight.item()) == (1, 1.0)


def test_the_best_checkpoints_are_kept_the_earlier_of_equals_first():
    layer = torch.nn.Linear(1, 1, bias=False)
    rewards = iter([0.1, 0.5, 0.3, 0.5, 0.3])
    validation = Validation("test", lambda model: {"reward": next(rewards)}, every=1, keep=3)
    state, control = TrainerState(max_steps=10), TrainerControl()
    for step in range(5):
        with torch.no_grad():
            layer.weight.fill_(step)
        state.global_step = step
        (validation.on_step_end if step else validation.on_train_begin)(None, state, control, model=layer)
    assert [(best.step, best.reward) for best in validation.best] == [(1, 0.5), (3, 0.5), (2, 0.3)]
    again = Validation("test", None, every=1, keep=3)
    again.load_state_dict(validation.state_dict())
    again.restore(layer, place=2)
    assert layer.weight.item() == 2.0


def validation_of(rewards: list[float], **kwargs) -> tuple[Validation, TrainerState, TrainerControl]:
    given = iter(rewards)
    validation = Validation("test", lambda model: {"reward": next(given)}, every=2, **kwargs)
    state, control = TrainerState(max_steps=10), TrainerControl()
    validation.on_train_begin(None, state, control, model=torch.nn.Linear(1, 1))
    return validation, state, control


def run_steps(validation, state, control, logs: list[dict]) -> None:
    for row in logs:
        state.global_step += 1
        validation.on_log(None, state, control, logs=row)
        validation.on_step_end(None, state, control, model=torch.nn.Linear(1, 1))


def test_train_rewards_far_above_val_are_told_of_once():
    """The mean since the validation before, so that a low beginning does not hide it."""
    run = validation_of([0.3, 0.3, 0.35, 0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_steps(*run, [{"reward": 0.4}, {"reward": 0.5}])
    with pytest.warns(UserWarning, match=r"step 4: the reward on train is 0\.600, on val 0\.350"):
        run_steps(*run, [{"reward": 0.5}, {"reward": 0.7}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_steps(*run, [{"reward": 0.9}, {"reward": 0.9}])


@pytest.mark.parametrize(("kl", "stops"), [(0.4, False), (0.6, True), (float("nan"), True)])
def test_a_step_too_far_from_the_reference_is_the_last(kl, stops):
    run = validation_of([0.3, 0.3], max_kl=0.5)
    run_steps(*run, [{"reward": 0.3, "kl": 0.1}])
    assert not run[2].should_training_stop
    with pytest.warns(UserWarning, match=r"stops at step 2: .* above rft\.max_kl 0\.5") if stops else nullcontext():
        run_steps(*run, [{"reward": 0.3, "kl": kl}])
    assert run[2].should_training_stop == stops


@pytest.mark.parametrize("log_first", [True, False], ids=["kshot", "trl"])
def test_weights_too_far_from_the_reference_are_not_kept_however_good_on_val(log_first):
    """The KL that step 3 tells is of the weights after step 2. TRL tells it when step 3 has been checked too."""
    rewards = iter([0.1, 0.2, 0.9, 0.8])
    validation = Validation("test", lambda model: {"reward": next(rewards)}, every=1, max_kl=0.5)
    layer, state, control = torch.nn.Linear(1, 1, bias=False), TrainerState(max_steps=10), TrainerControl()
    validation.on_train_begin(None, state, control, model=layer)
    for step, kl in enumerate([0.1, 0.2, 7.0], start=1):
        state.global_step = step
        with torch.no_grad():
            layer.weight.fill_(step)
        told = [
            lambda row={"kl": kl}: validation.on_log(None, state, control, logs=row),
            lambda: validation.on_step_end(None, state, control, model=layer),
        ]
        with pytest.warns(UserWarning, match=r"above rft\.max_kl") if kl > 0.5 else nullcontext():
            for tell in told if log_first else reversed(told):
                tell()
    validation.restore(layer)
    assert control.should_training_stop
    assert (validation.best_step, layer.weight.item()) == (1, 1.0)
    assert [point["step"] for point in validation.curve] == [0, 1, 2, 3][: 3 if log_first else 4]


def test_the_first_weights_are_always_among_the_best():
    validation, state, control = validation_of([0.3], max_kl=0.5)
    with pytest.warns(UserWarning, match="the KL to the reference is nan"):
        run_steps(validation, state, control, [{"kl": float("nan")}])
    assert validation.best_step == 0


def test_what_validation_knows_outlives_a_restart():
    """The alarm is told once, over the same steps; a KL above the limit takes back the checks of before."""
    first, state, control = validation_of([0.3, 0.4], max_kl=0.5)
    run_steps(first, state, control, [{"reward": 0.9}])  # no check is due yet
    again, _, _ = validation_of([0.0])
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    for validation in (first, again):
        validation.max_kl, validation.score = 0.5, lambda model: {"reward": 0.4}
        with pytest.warns(UserWarning, match=r"train is 0\.800, on val 0\.400"):
            run_steps(validation, TrainerState(max_steps=10, global_step=1), TrainerControl(), [{"reward": 0.7}])
    later, _, _ = validation_of([0.0])
    later.load_state_dict(copy.deepcopy(again.state_dict()))
    later.max_kl, later.score = 0.5, lambda model: {"reward": 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_steps(later, TrainerState(max_steps=10, global_step=3), TrainerControl(), [{"reward": 0.9}])
    assert later.best_step == 2
    with pytest.warns(UserWarning, match="above"):
        later.on_log(None, TrainerState(global_step=3), TrainerControl(), logs={"kl": 1.0})
    assert later.best_step == 0
