"""The events of an imported job, as OpenAI documents them: one of type `metrics` a step, with what was graded in
training and, at a validation step, on the whole validation file (developers.openai.com, guide rft, fine-tuning events).

They are a view of history.json, whose rows hold the same numbers under the names of `tasks.graders.jobs.job_metrics`.
Judges' tokens and latencies are those of graders that were asked; equal requests to a judge are asked once.
"""

from collections.abc import Iterator, Mapping, Sequence

from tasks.graders.openai import Failure

ERRORS = (Failure.SAMPLE_PARSE, Failure.INVALID_VARIABLE, Failure.OTHER)
OF_TYPE = {
    "python": (Failure.PYTHON_GRADER_SERVER, Failure.PYTHON_GRADER_RUNTIME),
    "score_model": (Failure.MODEL_GRADER_SERVER, Failure.MODEL_GRADER_REFUSAL, Failure.MODEL_GRADER_PARSE),
    "label_model": (Failure.MODEL_GRADER_SERVER, Failure.MODEL_GRADER_REFUSAL, Failure.MODEL_GRADER_PARSE),
    "multi": (Failure.FORMULA_PARSE,),
}
JUDGES = ("score_model", "label_model")
Sides = Mapping[str, Mapping[str, float] | None]  # {'train': a step's row, 'valid': the validation's, or None}


def events(graders: Mapping[str, str], steps: Sequence[dict], val: Sequence[dict], created: float) -> Iterator[dict]:
    """An event for each step and for the validation before the first. `graders` is {name: type}, a multi last; `steps`
    and `val` are the rows of history.json, `created` the Unix time at which the run began.
    """
    trained, checked = ({row["step"]: row for row in rows} for rows in (steps, val))
    total = max(trained, default=0)
    for step in sorted(trained.keys() | checked.keys()):
        created += trained.get(step, {}).get("seconds", 0.0) + checked.get(step, {}).get("seconds", 0.0)
        data = _data(graders, {"train": trained.get(step), "valid": checked.get(step)})
        yield {
            "object": "fine_tuning.job.event",
            "created_at": round(created),
            "level": "info",
            "message": f"Step {step}/{total}",
            "data": {"step": step, "total_steps": total, **data},
            "type": "metrics",
        }


def _data(graders: Mapping[str, str], sides: Sides) -> dict:
    parts = {name: kind for name, kind in graders.items() if kind != "multi"}
    train, valid = (sides[name] or {} for name in ("train", "valid"))
    tokens = {f"{side}_{name}": value for side, row in sides.items() if row for name, value in _reasoning(row).items()}
    return {
        "usage": {
            "graders": [_usage(name, kind, sides) for name, kind in parts.items() if kind in JUDGES],
            "samples": tokens,
        },
        "errors": {"graders": [_errors(name, kind, sides, len(graders) == 1) for name, kind in graders.items()]},
        "scores": {
            "graders": [_scores(name, kind, sides) for name, kind in parts.items()],
            **{f"{side}_reward_mean": row["reward"] for side, row in sides.items() if row},
        },
        "timing": {
            "step": {
                "eval": valid.get("seconds", 0.0),
                "sampling": train.get("seconds_rollout", 0.0),
                "training": train.get("seconds_update", 0.0),
                "full_iteration": train.get("seconds", 0.0) + valid.get("seconds", 0.0),
            },
            "graders": [_latency(name, kind, sides) for name, kind in parts.items()],
        },
        "train_mean_reward": train.get("reward"),
        "full_valid_mean_reward": valid.get("reward"),
        "reasoning_tokens_mean": train.get("reasoning_tokens"),
        "valid_reasoning_tokens_mean": valid.get("reasoning_tokens"),
        "completion_tokens_mean": train.get("completion_length"),
        "mean_unresponsive_rewards": train.get("unresponsive"),
    }


def _reasoning(row: Mapping[str, float]) -> dict[str, float]:
    mean = row["reasoning_tokens"]
    return {"reasoning_tokens_mean": mean, "reasoning_tokens_count": mean * row["num_graded"]}


def _errors(name: str, kind: str, sides: Sides, alone: bool) -> dict:
    """A mean and a count of each kind; those of a multi are its formula's, and of outputs that no grader read: of the
    only grader's where it is `alone`.
    """
    found: dict = {"name": name, "type": kind}
    places = ["beside"] * (alone or kind == "multi") + [f"errors/{name}"] * (kind != "multi")
    for side, row in sides.items():
        for failure in (*ERRORS, *OF_TYPE.get(kind, ())) if row else ():
            count = sum(row.get(f"{place}/{failure}", 0) for place in places)
            found[f"{side}_{failure}_error_mean"] = count / row["num_graded"]
            found[f"{side}_{failure}_error_count"] = count
    return found


def _scores(name: str, kind: str, sides: Sides) -> dict:
    means = {f"{side}_reward_mean": row[f"reward_graders/{name}"] for side, row in sides.items() if row}
    return {"name": name, "type": kind, **means}


def _latency(name: str, kind: str, sides: Sides) -> dict:
    means = {f"{side}_execution_latency_mean": row[f"latency/{name}"] for side, row in sides.items() if row}
    return {"name": name, "type": kind, **means}


def _usage(name: str, kind: str, sides: Sides) -> dict:
    found: dict = {"name": name, "type": kind}
    for side, row in sides.items():
        for tokens in ("prompt_tokens", "completion_tokens", "cached_tokens") if row else ():
            count = row.get(f"usage/{name}/{tokens}", 0)
            found |= {f"{side}_{tokens}_mean": count / row["num_graded"], f"{side}_{tokens}_count": count}
    return found
