"""`tasks.plan` against what is published, counted by torch, and measured."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tasks import plan
from tasks.models.adapters import learning
from tasks.models.geometry import FOLDER, build_model, read_config
from tasks.models.loading import load_model
from tasks.models.prefix import use_prefix_attention
from tasks.params import Model, load_params
from tasks.planning import flops, memory
from tasks.planning.flops import FORWARD, Pass
from tasks.planning.machines import GPUS
from tasks.planning.memory import Load
from tasks.planning.shapes import Picture, shapes
from tasks.rl.memory import saved_bytes
from tasks.rl.policy import Group, Policy
from tests.models.families import TEXT_FAMILIES, make_prompts
from tests.models.twins import TWINS, write_twin

PUBLISHED = {  # parameters, as the hub counts them in the safetensors
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "Llama-3.2-3B-Instruct": 3_212_749_824,
    "Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen3-VL-8B-Instruct": 8_767_123_696,
    "SmolVLM2-256M-Video-Instruct": 256_484_928,
    "SmolVLM2-500M-Video-Instruct": 507_482_304,
    "SmolVLM2-2.2B-Instruct": 2_246_784_880,
}
LORA = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
PROMPT, COMPLETION, NUM = 30, 12, 3


def named(path: str, **changed) -> Model:
    keys = {"revision": None, "dtype": "bfloat16", "min_pixels": None, "max_pixels": None, "lora": None}
    return Model(path=path, coordinates="relative_1000", **{**keys, **changed})


def test_every_geometry_has_the_published_number_of_parameters():
    assert {file.stem for file in FOLDER.glob("*.json")} == set(PUBLISHED)
    for name, number in PUBLISHED.items():
        assert shapes(named(f"somebody/{name}")).total == number, name


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> dict[str, Model]:
    return {family: write_twin(family, tmp_path_factory.mktemp(family)) for family in TWINS}


def scored(params: Model, family: str) -> tuple[Policy, Group]:
    model = learning(load_model(params), params)
    policy = Policy(model, 1.0)
    use_prefix_attention(policy.base)
    policy.model.train()
    (prompt,) = text_prompt(policy)
    return policy, Group(prompt, [torch.randint(10, 90, (COMPLETION,)) for _ in range(NUM)], {})


def text_prompt(policy: Policy):
    prompts = make_prompts("llama", policy.base, 1)
    ids = torch.randint(10, 90, (PROMPT,))
    positions = torch.arange(PROMPT).expand(prompts[0].positions.shape[0], -1)
    return [type(prompts[0])(ids, positions)]


def counted(run) -> int:
    """What torch counts; it does not know the CPU's own attention kernel, so that of matrix products is taken."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changed", [{}, {"lora": LORA}, {"trained": "language"}], ids=["whole", "adapter", "frozen tower"]
)
@pytest.mark.parametrize("family", ["qwen2_vl", "smolvlm", "llama"])
def test_operations_of_an_update_are_those_that_torch_counts(twins, family, changed):
    if family in TEXT_FAMILIES and "trained" in changed:
        changed = {}
    params = twins[family].model_validate({**twins[family].model_dump(), **changed})
    policy, group = scored(params, family)
    sizes = shapes(params)
    kept = []
    forward = counted(lambda: kept.append(policy.score([group])[0]))
    backward = counted(lambda: kept[0].sum().backward())
    told = flops.row(sizes, PROMPT, COMPLETION, NUM)
    assert told == pytest.approx(forward, rel=0.01)
    both = flops.row(sizes, PROMPT, COMPLETION, NUM, Pass(1, True))
    assert both == pytest.approx(forward + backward, rel=0.08)


@pytest.mark.parametrize("name", ["Qwen2-VL-7B-Instruct", "Qwen2.5-VL-3B-Instruct", "Qwen3-VL-8B-Instruct"])
def test_operations_at_the_published_size_are_those_that_torch_counts(name):
    """On the device `meta`, where nothing is computed: to the last operation."""
    model = build_model(read_config(name), torch.bfloat16, "meta")
    ids, positions = (torch.zeros(shape, dtype=torch.long, device="meta") for shape in ((1, 128), (3, 1, 128)))
    with torch.no_grad():
        found = counted(lambda: model(input_ids=ids, position_ids=positions, use_cache=False))
    assert flops.row(shapes(named(name)), 128, 0, 0, logits=128) == found


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_operations_of_the_tower_are_those_that_torch_counts(twins, family):
    params = twins[family]
    sizes, seen = shapes(params), plan.picture(params, (112, 112))
    model = load_model(params)
    config = model.config.vision_config
    if family == "smolvlm":
        tiles = seen.patches // seen.window
        pixels = {"pixel_values": torch.randn(1, tiles, 3, config.image_size, config.image_size)}
    else:
        side = math.isqrt(seen.patches)
        size = 3 * config.temporal_patch_size * config.patch_size**2
        pixels = {"pixel_values": torch.randn(seen.patches, size), "image_grid_thw": torch.tensor([[1, side, side]])}
    with torch.no_grad():
        found = counted(lambda: model.model.get_image_features(**pixels, return_dict=True))
    assert flops.tower(sizes, seen, FORWARD) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3", "llama"])
def test_activations_are_those_measured_to_a_third(twins, family):
    params = twins[family]
    policy, group = scored(params, family)
    tokens = PROMPT + NUM * (COMPLETION - 1)
    measured = saved_bytes(policy, lambda: policy.score([group]))
    head = NUM * COMPLETION * shapes(params).vocabulary * 4  # the probabilities
    assert memory.activations(shapes(params), params, tokens) + head == pytest.approx(measured, rel=0.34)


def test_what_a_model_keeps_is_counted_by_hand():
    sizes = shapes(named("Qwen/Qwen3-0.6B"))
    kept = memory.kept(sizes, named("Qwen/Qwen3-0.6B"), reference=True)
    number = PUBLISHED["Qwen3-0.6B"]
    assert kept == {"weights": 2 * number, "reference": 2 * number, "Adam": 4 * number}
    assert memory.learning(sizes, named("Qwen/Qwen3-0.6B")) == {"gradients": 2 * number}
    lora = named("Qwen/Qwen3-0.6B", lora=LORA)
    assert "reference" not in memory.kept(shapes(lora), lora, reference=True)
    four = named("Qwen/Qwen3-0.6B", lora={**LORA, "quantize": "nf4"})
    assert memory.weights(shapes(four), four) < 0.6 * memory.weights(shapes(lora), lora)


def test_mixed_precision_keeps_float32_and_works_on_copies_in_half():
    model = named("Qwen/Qwen3-0.6B", dtype="float32", compute="bfloat16")
    sizes, number, full = shapes(model), PUBLISHED["Qwen3-0.6B"], named("Qwen/Qwen3-0.6B", dtype="float32")
    assert memory.kept(sizes, model, reference=False) == {"weights": 4 * number, "Adam": 8 * number}
    copied = sum(part.trained for part in sizes.linear.values()) * 2
    assert memory.learning(sizes, model) == {"gradients": 4 * number, "copies": copied}
    assert memory.answering(sizes, model, 9)["copies"] == copied
    assert memory.keys_and_values(sizes, model, 9) == memory.keys_and_values(sizes, full, 9) / 2
    assert memory.activations(sizes, model, 999) < 0.1 * memory.activations(sizes, full, 999)


def test_float32_is_computed_at_its_own_rate():
    """H100: 67 TFLOP/s, and 989 with tensor cores; half precision recomputes each layer."""
    times = [study_of(big(dtype="float32", compute=compute)).sft_step(16).seconds for compute in (None, "bfloat16")]
    assert times[0] / times[1] == pytest.approx(989 / 67 * 3 / 4, rel=0.02)


def test_weights_that_would_not_move_are_not_offered():
    params = big(dtype="float32")
    slow = plan.changed(params, "rft.learning_rate", 1e-6)
    typed = [[words for words, *_ in plan.models(one)] for one in (params, slow)]
    assert typed[0][0] == "model.dtype=bfloat16" and "model.compute=bfloat16" not in typed[0]
    assert typed[1][0] == "model.compute=bfloat16" and "model.dtype=bfloat16" not in typed[1]
    assert not any("dtype" in fix[0] for fix in plan.models(plan.changed(slow, "model.compute", "bfloat16")))
    lora = plan.changed(slow, "model.lora", plan.ADAPTER)
    assert next(words for words, *_ in plan.models(lora)) == "model.dtype=bfloat16"


def test_processes_share_the_decoder_layers_alone():
    """Qwen3-0.6B: 28 layers of 15,730,944; 155,583,488 weights outside are whole, and so is the reference."""
    model, number, layers = named("Qwen/Qwen3-0.6B"), PUBLISHED["Qwen3-0.6B"], 28 * 15_730_944
    sizes, held = shapes(model), number - layers * 3 / 4
    assert sizes.decoder.all == layers
    assert memory.kept(sizes, model, reference=True, shards=4) == {
        "weights": 2 * held, "reference": 2 * number, "Adam": 4 * held,
    }  # fmt: skip
    assert memory.learning(sizes, model, shards=4) == {"gradients": 2 * held, "layers at work": 3 * 2 * 15_730_944}
    assert memory.answering(sizes, model, 0, shards=4)["layers whole"] == 2 * layers


def together(params, backend: str, num: int):
    return plan.changed(params, "launch", {"backend": backend, "num_processes": num})


def test_weights_and_a_reference_that_are_whole_in_every_process_are_counted_whole():
    """Qwen2-VL-7B in float32 over 8: both take 66.3 GB at the rollout, however many processes there are."""
    params, load = together(big(dtype="float32"), "fsdp", 8), Load(500, 128, Picture())
    found = memory.rft(params, shapes(params.model), load, GPUS["H100"])
    whole = {**found.kept, **found.moments["rollout"]}
    assert whole["weights"] + whole["layers whole"] > 33.1e9 and whole["reference"] > 33.1e9
    assert found.peak > 66.3e9


def test_supervised_steps_are_not_sharded(capsys, monkeypatch):
    params, load = big(), Load(500, 128, Picture())
    held = [memory.sft(together(params, name, 8), shapes(params.model), load, GPUS["H100"]) for name in ("ddp", "fsdp")]
    assert held[0] == held[1]
    for stage, sharded in (("sft", False), ("rft", True)):
        told = "\n".join(plan.memory_lines(together(params, "ddp", 8), stage, load, GPUS["4090"]))
        assert "DOES NOT FIT" in told and ("launch=fsdp" in told) == sharded


def test_a_batch_that_does_not_share_out_is_no_fix():
    params = together(big(lora=LORA), "ddp", 8)
    assert not plan.fitting(params, "rft.prompts_per_step", 4, lambda params: memory.Memory({}, {"step": {}}), 1.0)


def test_vllm_has_its_share_of_the_gpu_at_the_rollout_and_without_sleep_always():
    load, gpu, lora = Load(500, 128, Picture()), GPUS["H100"], big(lora=LORA)
    for sleep in (True, False):
        vllm = {"mode": "colocated", "memory_share": 0.3, "sleep": sleep, "max_importance": 2.0}
        params = plan.changed(lora, "rft.vllm", vllm)
        moments = memory.rft(params, shapes(params.model), load, gpu).moments
        assert moments["rollout"] == {"vLLM": 0.3 * gpu.memory}
        assert ("vLLM" in moments["update"]) == (not sleep) and "activations" in moments["update"]


def test_pictures_take_the_tokens_that_the_processors_make():
    """640 x 480: Qwen2-VL 46 x 34 patches of 14, four to a token; SmolVLM 4 x 3 tiles and the whole of 64 tokens."""
    assert plan.picture(named("Qwen/Qwen2-VL-2B-Instruct"), (640, 480)) == Picture(1564, 0, 391, 391)
    tiles = plan.picture(named("x/SmolVLM2-256M-Video-Instruct"), (640, 480))
    assert (tiles.patches, tiles.merged) == (13 * 1024, 13 * 64)
    assert tiles.tokens > tiles.merged
    assert plan.picture(named("Qwen/Qwen3-0.6B"), (640, 480)) == Picture()


def big(**changed):
    params = load_params()
    rft = params.rft.model_copy(update={"beta": 0.04, "micro_batch_tokens": 8192})
    grade = params.grade.model_copy(update={"batch_size": 16})
    return params.model_copy(
        update={"model": named("Qwen/Qwen2-VL-7B-Instruct", **changed), "rft": rft, "grade": grade}
    )


def test_what_does_not_fit_is_told_with_the_settings_that_do():
    """7B whole: 8.3 G weights take 16.6 GB, as much as the reference, and three times that for the update."""
    load = Load(500, 128, Picture())
    needed = lambda params: memory.rft(params, shapes(params.model), load, GPUS["4090"])  # noqa: E731
    there = GPUS["4090"].memory * 0.9
    assert needed(big()).peak > there
    told = plan.all_fixes(big(), "rft", needed, there)
    assert any("quantize:nf4" in fix for fix in told)
    assert all("model" in fix for fix in told)  # no batch is small enough for the whole weights
    lora = big(lora=plan.ADAPTER)
    assert needed(lora).kept["weights"] == 2 * PUBLISHED["Qwen2-VL-7B-Instruct"]
    assert needed(big(lora={**plan.ADAPTER, "quantize": "nf4"})).peak < there


def test_the_command_prints_a_plan_of_the_shipped_study(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plan", "--gpu", "4090", "--picture", "112x112"])
    assert plan.main() == 0
    shown = capsys.readouterr().out
    assert "parameters: 2," in shown and "sft: " in shown and "fits" in shown
    assert "not been checked on a GPU" in shown


def study_of(params) -> plan.Study:
    return plan.Study(params, shapes(params.model), Load(500, 128, Picture()), GPUS["H100"])


def test_twice_the_processes_take_less_time_for_the_same_work():
    one, two = (study_of(together(big(lora=LORA), *many)) for many in (("single", 1), ("ddp", 2)))
    steps = [study.rft_step("grpo") for study in (one, two)]
    assert steps[0].flops == steps[1].flops
    assert 0.4 * steps[0].seconds < steps[1].seconds < steps[0].seconds
    assert one.stages(64, 4, 1000)["grade"] == two.stages(64, 4, 1000)["grade"]  # of one process


def test_self_training_on_samples_is_supervised_steps_and_the_samples():
    params = big(lora=LORA)
    grid = {"algorithm": ["offline_st"], "policy": ["sft", "offline_st"], "k": [4], "seed": [0]}
    params = plan.changed(params, "grid", {**grid, "matched": "data", "init": params.grid.init})
    study, settings = study_of(params), params.rft.self_training
    step = study.sft_step(settings.batch_size)
    assert study.rft_step("offline_st") == step
    found = study.stages(10, 0, 0)["offline_st"]
    checks = 1 + params.rft.steps // params.rft.eval_steps
    checked = study.answers(0, 1, params.grade.max_new_tokens).times(checks)
    sampled = 10 * (500 + settings.samples * params.rft.max_completion_length)
    assert found.tokens == step.tokens * params.rft.steps + checked.tokens + sampled
    assert plan.trained_stages(params) == ["sft", "offline_st"]


def test_self_training_on_rollouts_has_no_reference_and_one_update():
    params = plan.changed(big(lora=LORA), "rft.beta", 0.0)
    online, grpo = (study_of(params).rft_step(name) for name in ("online_st", "grpo"))
    assert online == grpo
    assert study_of(plan.changed(params, "rft.beta", 0.04)).rft_step("online_st") == online


def test_a_reward_model_is_paid_for_once_a_policy():
    params = plan.changed(big(lora=LORA), "grade.samples", 4)
    without = study_of(params).stages(10, 4, 20)
    study = study_of(plan.changed(params, "grid.rerank", ["sft", "grpo"]))
    found = study.stages(10, 4, 20)
    num, length = params.reward_model.samples, params.grade.max_new_tokens
    passes = params.reward_model.epochs * (10 + 4) * num + 20 * 4
    assert "rerank" not in without
    assert found["rerank"].tokens == 14 * (500 + num * length) + passes * (500 + length)
    points = len(params.grid.k) * len(params.grid.seed)
    more = study.total(found).tokens - study_of(params).total(without).tokens
    assert more == pytest.approx(2 * points * found["rerank"].tokens)


def test_a_bad_file_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["plan", "--params", str(tmp_path / "none.yaml")])
    assert plan.main() == 2
    assert "none.yaml" in capsys.readouterr().err
    assert Path("params.yaml").is_file()
