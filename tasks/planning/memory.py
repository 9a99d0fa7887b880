"""Memory of one process, in bytes by what they hold, for the two moments of a step and for SFT.

Weights, gradients, Adam's two moments and keys and values are counted. Activations are a sum over what autograd keeps
of a layer, checked to a third against tasks.rl.memory's measurement in tests/test_plan.py; what an allocator loses is
not in it: leave a tenth.
"""

from dataclasses import dataclass
from math import ceil

from tasks.params import Model, Params
from tasks.planning.machines import Gpu
from tasks.planning.shapes import Picture, Shapes
from tasks.rl.logprobs import CHUNK
from tasks.schema.vllm import Colocated

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FOUR_BITS = 0.52  # bytes a weight, with its share of the scales (QLoRA, arXiv 2305.14314, section 3)


@dataclass(frozen=True)
class Load:
    """What a process works on at once: a question of `prompt` tokens with a picture, answers of `completion` tokens."""

    prompt: int
    completion: int
    picture: Picture


@dataclass(frozen=True)
class Memory:
    """Bytes. What is `kept` is there all the time, the other parts after each other."""

    kept: dict[str, float]
    moments: dict[str, dict[str, float]]

    @property
    def peak(self) -> float:
        return sum(self.kept.values()) + max(sum(parts.values()) for parts in self.moments.values())

    @property
    def worst(self) -> str:
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))


def weights(shapes: Shapes, model: Model) -> float:
    """Of the base model; quantized are the matrix products but the head's."""
    size = BYTES[model.dtype]
    if not (model.lora and model.lora.quantize):
        return shapes.total * size
    small = sum(shapes.linear[part].frozen for part in ("language", "tower", "merger"))
    return small * FOUR_BITS + (shapes.total - small) * size


def kept(shapes: Shapes, model: Model, reference: bool, shards: int = 1) -> dict[str, float]:
    """What is there all the time; gradients are not. `shards`: processes that share the decoder layers' weights and
    Adam's state (FSDP); the rest, and a reference that is a copy, are whole in each.
    """
    held = weights(shapes, model)
    base, learned, layers_learned = _layers(shapes, model)
    away = 1 - 1 / shards  # of the layers, with the other processes
    parts = {
        "weights": held - base * away,
        "reference": held if reference and not shapes.adapter else 0,
        "adapter": learned - layers_learned * away if shapes.adapter else 0,
        "Adam": 2 * (learned - layers_learned * away),
    }
    return {name: size for name, size in parts.items() if size}


def _layers(shapes: Shapes, model: Model) -> tuple[float, float, float]:
    """Bytes of the decoder layers without adapters, of all that learns, and of what of it is in the decoder layers.
    PEFT holds an adapter in float32 beside weights in half precision.
    """
    size = BYTES[model.dtype]
    own = 4 if shapes.adapter else size
    base = shapes.decoder.frozen if shapes.adapter else shapes.decoder.all
    return base * size, shapes.trained * own, shapes.decoder.trained * own


def learning(shapes: Shapes, model: Model, shards: int = 1) -> dict[str, float]:
    """What an update holds beside: gradients, and of sharded layers two whole at a time, with a gradient."""
    base, learned, layers_learned = _layers(shapes, model)
    held = {"gradients": learned - layers_learned * (1 - 1 / shards), **copies(shapes, model)}
    if shards == 1:
        return held
    return held | {"layers at work": 3 * (base + layers_learned * shapes.adapter) / shapes.layers}


def copies(shapes: Shapes, model: Model) -> dict[str, float]:
    """In mixed precision autocast keeps a copy of what learns, by which a pass multiplies; frozen weights it copies
    each time anew.
    """
    if model.computing == model.dtype:
        return {}
    return {"copies": sum(part.trained for part in shapes.linear.values()) * BYTES[model.computing]}


def answering(shapes: Shapes, model: Model, tokens: int, shards: int = 1) -> dict[str, float]:
    """What rollout and validation hold beside: sharded layers whole, and keys and values of `tokens`."""
    base, _, layers_learned = _layers(shapes, model)
    whole = {"layers whole": base + layers_learned * shapes.adapter} if shards > 1 else {}
    return {**whole, **copies(shapes, model), "keys and values": keys_and_values(shapes, model, tokens)}


def keys_and_values(shapes: Shapes, model: Model, tokens: int) -> float:
    return 2 * shapes.layers * shapes.kv * BYTES[model.computing] * tokens


def activations(shapes: Shapes, model: Model, tokens: int) -> float:
    """Kept for the backward pass through the language model. In half precision layers are recomputed one by one, from
    what goes into each: of the type of the weights.
    """
    size = BYTES[model.computing]
    normed, attended = 6 * shapes.hidden, 3 * shapes.heads + 3 * shapes.kv
    layer = (normed + attended + 4 * shapes.intermediate) * size
    if model.computing == "float32":
        return tokens * layer * shapes.layers
    return tokens * (shapes.layers * shapes.hidden * BYTES[model.dtype] + layer)


def tower_activations(shapes: Shapes, model: Model, picture: Picture) -> float:
    """The same for one picture; nothing for a frozen tower."""
    if not (shapes.linear["tower"].trained or shapes.linear["merger"].trained):
        return 0
    layer = 18 * shapes.tower_hidden * BYTES[model.computing]  # its inner layer is about 4 wide
    if model.computing == "float32":
        return picture.patches * layer * shapes.tower_layers
    return picture.patches * (shapes.tower_layers * shapes.tower_hidden * BYTES[model.dtype] + layer)


def rft(params: Params, shapes: Shapes, load: Load, gpu: Gpu) -> Memory:
    """A process of RFT by the engine kshot: GRPO, PPO or online self-training, sharded where launch.backend is fsdp."""
    rft, model = params.rft, params.model
    betas = {"grpo": rft.beta, "ppo": rft.ppo.beta}
    reference = any(betas.get(algorithm, 0) for algorithm in params.grid.algorithm)
    processes = params.launch.num_processes
    shards = processes if params.launch.backend == "fsdp" else 1
    prompts = ceil(rft.prompts_per_step / processes)
    group = load.prompt + rft.num_generations * load.completion
    tokens = max(rft.micro_batch_tokens, group)
    update = {
        **learning(shapes, model, shards),
        "activations": activations(shapes, model, min(tokens, prompts * group)),
        "tower": prompts * tower_activations(shapes, model, load.picture),
        "logits": 4 * CHUNK * 4,
    }
    moments = {
        "rollout": answering(shapes, model, prompts * group, shards),
        "update": update,
        "validation": _validation(params, shapes, load, shards),
    }
    return Memory(kept(shapes, model, reference, shards), _with_vllm(moments, params, gpu))


def _with_vllm(moments: dict[str, dict[str, float]], params: Params, gpu: Gpu) -> dict[str, dict[str, float]]:
    """vLLM in the process that trains has a share of the GPU: at the rollout, in which it holds the keys and values,
    and without `sleep` at all times. A server is on another GPU.
    """
    vllm = params.rft.vllm
    if not isinstance(vllm, Colocated):
        return moments
    share = {"vLLM": vllm.memory_share * gpu.memory}
    awake = {} if vllm.sleep else share
    return {name: {**parts, **awake} for name, parts in moments.items()} | {"rollout": share}


def sft(params: Params, shapes: Shapes, load: Load, gpu: Gpu) -> Memory:
    """A process of SFT, which only DeepSpeed shards (not planned for): TRL's trainer computes the vocabulary for every
    token, prompt and padding included.
    """
    return _supervised(params, shapes, load, params.sft.batch_size)


def offline_st(params: Params, shapes: Shapes, load: Load, gpu: Gpu) -> Memory:
    """The same on batches of samples."""
    return _supervised(params, shapes, load, params.rft.self_training.batch_size)


def _supervised(params: Params, shapes: Shapes, load: Load, batch: int) -> Memory:
    model, rows = params.model, ceil(batch / params.launch.num_processes)
    tokens = rows * (load.prompt + load.completion)
    step = {
        **learning(shapes, model),
        "activations": activations(shapes, model, tokens),
        "tower": rows * tower_activations(shapes, model, load.picture),
        "logits": tokens * shapes.vocabulary * (BYTES[model.computing] + 8),
    }
    return Memory(kept(shapes, model, False), {"step": step, "validation": _validation(params, shapes, load)})


def _validation(params: Params, shapes: Shapes, load: Load, shards: int = 1) -> dict[str, float]:
    grade = params.grade
    return answering(shapes, params.model, grade.batch_size * (load.prompt + grade.max_new_tokens), shards)
