"""Stage `rerank`: a reward model chooses among a policy's samples (ReFT, arXiv 2401.08967). For the policies of
`grid.rerank`.

`python -m tasks.rerank --policy grpo --k 4 --seed 0 --pool data/pool --slice data/slice/4-0
--init policies/sft-4-0 --model policies/grpo-4-0 --samples grades/grpo-4-0/samples.jsonl --out grades/grpo-4-0`

The reward model starts from the policy, learns from chains of what RFT began with on the slice's train questions and is
chosen on val, as `tasks.models.reward_model` says; the test is only reranked, the very samples that the majority vote
counts. rerank.jsonl holds the chosen answer to each problem, rerank.json the share of right ones.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tasks.data.records import Question, read_jsonl, write_jsonl
from tasks.models.loading import load_model
from tasks.models.reward_model import RewardModel, sample_chains
from tasks.models.training import Job
from tasks.params import load_params
from tasks.scoring.votes import VOTED, best


def choose(model: RewardModel, samples: Sequence[dict]) -> list[dict]:
    """For each row of samples.jsonl {"record_id", "asked", "completion", "score", "right"}; without a sample that
    states an answer, no completion, which is wrong.
    """
    rows = []
    for sampled in samples:
        question = Question(sampled["record_id"], None, sampled["task"], sampled["asked"])
        texts, right = sampled["completions"], sampled["right"]
        scores = model.score([question] * len(texts), texts)
        place = best(scores, [stated is not None for stated in sampled["stated"]])
        chosen = {"completion": None, "score": None, "right": False}
        if place is not None:
            chosen = {"completion": texts[place], "score": scores[place], "right": right[place]}
        rows.append({"record_id": question.record_id, "asked": question.asked, **chosen})
    return rows


def rerank(job: Job, init: Path, samples: Path, out: Path) -> dict:
    """Train the reward model of `job`'s policy, write rerank.jsonl; returns the metrics.

    ValueError where there is nothing to rerank.
    """
    began, settings, sampled = time.time(), job.params.reward_model, list(read_jsonl(samples))
    if not sampled:
        raise ValueError(f"{samples} is empty: no test question is {' or '.join(VOTED)}; leave grid.rerank empty")
    questions = {name: [q for q in getattr(job, name) if q.task in VOTED] for name in ("train", "val")}
    sampler = load_model(job.params.model, init)
    chains = {name: sample_chains(job, sampler, some, settings.samples) for name, some in questions.items()}
    del sampler
    model = RewardModel(job)
    epochs = model.fit(chains["train"], chains["val"], settings)
    rows = choose(model, sampled)
    write_jsonl(out / "rerank.jsonl", rows)
    return {
        "rerank": fmean(row["right"] for row in rows),
        "num_chains": len(chains["train"]),
        "num_right": sum(chain.right for chain in chains["train"]),
        "epochs": epochs,
        "seconds": round(time.time() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pool", "slice", "init", "model", "samples", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    job = Job(load_params(), args.policy, args.pool, args.slice, args.model, args.seed)
    metrics = {"policy": args.policy, "k": args.k, "seed": args.seed}
    metrics |= rerank(job, args.init, args.samples, args.out)
    (args.out / "rerank.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
