"""Is the comparison fair? What SFT and RFT must share beside the data, what grid.matched promises, and where they do
not.
"""

from collections.abc import Callable

from tasks.reporting.study import Graded, History, Study
from tasks.reporting.words import name, si

# What a history tells, None where it does not.
TRAINED: dict[str, Callable[[History], object]] = {
    "PEFT mode": lambda h: h.model and _peft(h.model["lora"]),
    "trained part": lambda h: h.model and h.model.get("trained"),
    "dtype": lambda h: h.model and _dtype(h.model),
    "resolution": lambda h: h.model and f"{h.model['min_pixels']} to {h.model['max_pixels']} pixels",
    "prompt": lambda h: h.prompt and repr(h.prompt),
    "training pictures": lambda h: h.train_sha256 and f"{h.num_labelled} pictures, sha256 {h.train_sha256[:12]}",
}
# What SFT and RFT are to spend alike, by grid.matched.
PROMISED = {
    "data": ("labelled samples", lambda h: h.num_labelled),
    "steps": ("gradient steps", lambda h: (h.budget or {}).get("gradient_steps")),
    "flops": ("FLOPs", lambda h: (h.budget or {}).get("flops")),
}
MOST_OFF = 0.1  # of what RFT spent
GRADED: dict[str, Callable[[Graded], object]] = {
    "existence mode": lambda g: g.existence,
    "test set": lambda g: hash(tuple((a.question, a.image, a.gold, a.gold_label) for a in g.answers)),
}


def _peft(lora: dict | None) -> str:
    return "full fine-tuning" if lora is None else f"LoRA {lora}"


def _dtype(model: dict) -> str | None:
    dtype, compute = model.get("dtype"), model.get("compute")
    return dtype and (f"{dtype}, computed in {compute}" if compute not in (None, dtype) else dtype)


def differences(study: Study) -> tuple[str, ...]:
    """A sentence for each thing in which an algorithm and SFT differ at some k and seed; empty for a fair study."""
    found = []
    for algorithm in study.grid.algorithm:
        for what, told in TRAINED.items():
            pairs = _pairs(study.histories, algorithm)
            if differing := [(a, b) for a, b in pairs if None not in (told(a), told(b)) and told(a) != told(b)]:
                a, b = differing[0]
                detail = f"{told(b)} against {told(a)} at k = {a.k}, seed {a.seed}"
                found.append(f"SFT and {name(algorithm)} differ in {what}: {detail}.")
        for what, told in GRADED.items():
            if differing := [(a, b) for a, b in _pairs(study.graded, algorithm) if told(a) != told(b)]:
                a, b = differing[0]
                detail = f"{told(b)} against {told(a)}" if what == "existence mode" else "other truth or other pictures"
                found.append(f"SFT and {name(algorithm)} differ in {what}: {detail} at k = {a.k}, seed {a.seed}.")
        found += _broken_promise(study, algorithm)
    return tuple(found)


def _broken_promise(study: Study, algorithm: str) -> list[str]:
    """A sentence where SFT did not spend what grid.matched promises: the worst of the ks and seeds."""
    what, _ = PROMISED[study.grid.matched]
    spent = _spent(study, algorithm)
    off = {at: abs(sft / rft - 1) for at, (sft, rft) in spent.items() if None not in (sft, rft) and rft}
    if not off or max(off.values()) <= MOST_OFF:
        return []
    k, seed = worst = max(off, key=off.get)
    sft, rft = map(si, spent[worst])
    return [
        f"SFT and {name(algorithm)} differ in {what}, which are to be alike (grid.matched: {study.grid.matched}): "
        f"{sft} against {rft} at k = {k}, seed {seed}."
    ]


def _spent(study: Study, algorithm: str) -> dict[tuple[int, int], tuple[float | None, float | None]]:
    """{(k, seed): what SFT spent, what `algorithm` and what it began with spent together}; None where a history is
    silent. Of labelled samples, which the two share, RFT has spent its own.
    """
    mode, (_, told) = study.grid.matched, PROMISED[study.grid.matched]
    begun = {(h.k, h.seed): h for h in study.histories if h.policy == study.grid.init}
    found = {}
    for rft, sft in _pairs(study.histories, algorithm):
        init = begun[rft.k, rft.seed]
        # a warm-up of no steps counts nothing
        parts = [told(rft)] + ([told(init)] if mode != "data" and init.steps else [])
        found[rft.k, rft.seed] = told(sft), None if None in parts else sum(parts)
    return found


def unknown(study: Study) -> tuple[str, ...]:
    """What some history does not tell, so that it cannot be compared."""
    trained = [h for h in study.histories if h.policy != "warmup"]
    silent = [what for what, told in TRAINED.items() if any(told(h) is None for h in trained)]
    spent = [value for a in study.grid.algorithm for pair in _spent(study, a).values() for value in pair]
    return (*silent, *([PROMISED[study.grid.matched][0]] if None in spent else []))


def checked(study: Study) -> tuple[str, ...]:
    """What was compared."""
    silent = {*unknown(study), *([] if "detection" in study.tasks else ["existence mode"])}
    return tuple(what for what in (*TRAINED, PROMISED[study.grid.matched][0], *GRADED) if what not in silent)


def _pairs(runs: tuple, algorithm: str) -> list[tuple]:
    """(of the algorithm, of SFT) at the same k and seed."""
    at = {(run.policy, run.k, run.seed): run for run in runs}
    return [(run, at["sft", run.k, run.seed]) for run in runs if run.policy == algorithm]
