"""Is the comparison fair? What SFT and RFT must share beside the data, and where they do not."""

from collections.abc import Callable

from tasks.reporting.study import Graded, History, Study
from tasks.reporting.words import name

# What a history tells, None where it does not.
TRAINED: dict[str, Callable[[History], object]] = {
    "PEFT mode": lambda h: h.model and _peft(h.model["lora"]),
    "resolution": lambda h: h.model and f"{h.model['min_pixels']} to {h.model['max_pixels']} pixels",
    "prompt": lambda h: h.prompt and repr(h.prompt),
    "training pictures": lambda h: h.train_sha256 and f"{h.num_labelled} pictures, sha256 {h.train_sha256[:12]}",
}
GRADED: dict[str, Callable[[Graded], object]] = {
    "existence mode": lambda g: g.existence,
    "test set": lambda g: hash(tuple((a.question, a.image, a.gold, a.gold_label) for a in g.answers)),
}


def _peft(lora: dict | None) -> str:
    return "full fine-tuning" if lora is None else f"LoRA {lora}"


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
    return tuple(found)


def unknown(study: Study) -> tuple[str, ...]:
    """What some history does not tell, so that it cannot be compared."""
    trained = [h for h in study.histories if h.policy != "warmup"]
    return tuple(what for what, told in TRAINED.items() if any(told(h) is None for h in trained))


def checked(study: Study) -> tuple[str, ...]:
    """What was compared."""
    silent = {*unknown(study), *([] if "detection" in study.tasks else ["existence mode"])}
    return tuple(what for what in (*TRAINED, *GRADED) if what not in silent)


def _pairs(runs: tuple, algorithm: str) -> list[tuple]:
    """(of the algorithm, of SFT) at the same k and seed."""
    at = {(run.policy, run.k, run.seed): run for run in runs}
    return [(run, at["sft", run.k, run.seed]) for run in runs if run.policy == algorithm]
