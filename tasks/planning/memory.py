"""Memory of one process, in bytes by what they hold, for the two moments of a step and for SFT.

Weights, gradients, Adam's two moments and keys and values are counted. Activations are a sum over what autograd keeps
of a layer, checked to a third against tasks.rl.memory's measurement in tests/test_plan.py; what an allocator loses is
not in it: leave a tenth.
"""

from dataclasses import dataclass

from tasks.params import Model, Params
from tasks.planning.shapes import Picture, Shapes
from tasks.rl.logprobs import CHUNK

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


def kept(shapes: Shapes, model: Model, reference: bool, sharded_over: int) -> dict[str, float]:
    """`sharded_over`: processes that share weights, gradients and Adam (FSDP); 1: each holds all (DDP)."""
    held = weights(shapes, model)
    # PEFT holds an adapter in float32 beside weights in half precision
    trained = shapes.trained * (4 if shapes.adapter else BYTES[model.dtype])
    parts = {
        "weights": held,
        "reference": held if reference and not shapes.adapter else 0,
        "adapter": trained if shapes.adapter else 0,
        "gradients and Adam": 3 * trained,
    }
    return {name: size / sharded_over for name, size in parts.items() if size}


def keys_and_values(shapes: Shapes, model: Model, tokens: int) -> float:
    return 2 * shapes.layers * shapes.kv * BYTES[model.dtype] * tokens


def activations(shapes: Shapes, model: Model, tokens: int) -> float:
    """Kept for the backward pass through the language model. In half precision layers are recomputed one by one."""
    size = BYTES[model.dtype]
    normed, attended = 6 * shapes.hidden, 3 * shapes.heads + 3 * shapes.kv
    layer = (normed + attended + 4 * shapes.intermediate) * size
    if model.dtype == "float32":
        return tokens * layer * shapes.layers
    return tokens * (shapes.layers * shapes.hidden * size + layer)


def tower_activations(shapes: Shapes, model: Model, picture: Picture) -> float:
    """The same for one picture; nothing for a frozen tower."""
    if not (shapes.linear["tower"].trained or shapes.linear["merger"].trained):
        return 0
    size, layer = BYTES[model.dtype], 18 * shapes.tower_hidden  # its inner layer is about 4 wide
    if model.dtype == "float32":
        return picture.patches * layer * shapes.tower_layers * size
    return picture.patches * (shapes.tower_layers * shapes.tower_hidden + layer) * size


def rft(params: Params, shapes: Shapes, load: Load, processes: int = 1, sharded: bool = False) -> Memory:
    """A process of RFT by the engine kshot, GRPO or PPO."""
    rft, grade, model = params.rft, params.grade, params.model
    betas = {"ppo": rft.ppo.beta}
    reference = any(betas.get(algorithm, rft.beta) for algorithm in params.grid.algorithm)
    prompts = -(-rft.prompts_per_step // processes)
    group = load.prompt + rft.num_generations * load.completion
    tokens = max(rft.micro_batch_tokens, group)
    logits = 4 * CHUNK * 4
    update = {
        "activations": activations(shapes, model, min(tokens, prompts * group)),
        "tower": prompts * tower_activations(shapes, model, load.picture),
        "logits": logits,
    }
    return Memory(
        kept(shapes, model, reference, processes if sharded else 1),
        {
            "rollout": {"keys and values": keys_and_values(shapes, model, prompts * group)},
            "update": update,
            "validation": {
                "keys and values": keys_and_values(
                    shapes, model, grade.batch_size * (load.prompt + grade.max_new_tokens)
                )
            },
        },
    )


def sft(params: Params, shapes: Shapes, load: Load, processes: int = 1, sharded: bool = False) -> Memory:
    """A process of SFT: TRL's trainer computes the vocabulary for every token, prompt and padding included."""
    model, rows = params.model, -(-params.sft.batch_size // processes)
    tokens = rows * (load.prompt + load.completion)
    step = {
        "activations": activations(shapes, model, tokens),
        "tower": rows * tower_activations(shapes, model, load.picture),
        "logits": tokens * shapes.vocabulary * (BYTES[model.dtype] + 8),
    }
    grade = params.grade
    answers = keys_and_values(shapes, model, grade.batch_size * (load.prompt + grade.max_new_tokens))
    return Memory(
        kept(shapes, model, False, processes if sharded else 1),
        {"step": step, "validation": {"keys and values": answers}},
    )
