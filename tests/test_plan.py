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
    kept = memory.kept(sizes, named("Qwen/Qwen3-0.6B"), reference=True, sharded_over=1)
    number = PUBLISHED["Qwen3-0.6B"]
    assert kept == {"weights": 2 * number, "reference": 2 * number, "gradients and Adam": 6 * number}
    halves = memory.kept(sizes, named("Qwen/Qwen3-0.6B"), reference=True, sharded_over=2)
    assert sum(halves.values()) == sum(kept.values()) / 2
    lora = named("Qwen/Qwen3-0.6B", lora=LORA)
    assert "reference" not in memory.kept(shapes(lora), lora, reference=True, sharded_over=1)
    four = named("Qwen/Qwen3-0.6B", lora={**LORA, "quantize": "nf4"})
    assert memory.weights(shapes(four), four) < 0.6 * memory.weights(shapes(lora), lora)


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
    needed = lambda params: memory.rft(params, shapes(params.model), load)  # noqa: E731
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


def test_twice_the_processes_take_less_time_for_the_same_work():
    load = Load(500, 128, Picture())
    params, sizes = big(lora=LORA), shapes(big(lora=LORA).model)
    one, two = (plan.Study(params, sizes, load, GPUS["H100"], number).rft_step("grpo") for number in (1, 2))
    assert one.flops == two.flops
    assert 0.4 * one.seconds < two.seconds < one.seconds


def test_a_bad_file_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["plan", "--params", str(tmp_path / "none.yaml")])
    assert plan.main() == 2
    assert "none.yaml" in capsys.readouterr().err
    assert Path("params.yaml").is_file()
