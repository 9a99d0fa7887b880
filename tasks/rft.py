"""Stage `rft`: reinforcement fine-tuning from the SFT policy or a warm-up of its own, with verifiable rewards.

`python -m tasks.rft --algorithm grpo --pool data/pool --slice data/slice/4-0 --init policies/sft-4-0 --seed 0
--out policies/grpo-4-0` GRPO (DeepSeekMath, arXiv 2402.03300; Visual-RFT, arXiv 2503.01785) or PPO (ReFT, arXiv
2401.08967), by our engine `kshot` or by TRL's; or self-training, ReFT's baselines. The reward is the grader of
`tasks.graders`, which validation and grading use too; training stops early and keeps the best weights by it on val.
SIGTERM or the file .rft/pause pauses a run of `kshot` (exit code 75); the same command goes on.
"""

import sys
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from tasks import launch
from tasks.models import pause
from tasks.models.checkpoint import ROOT, Checkpoints
from tasks.models.training import Job, arguments
from tasks.models.validation import Validation
from tasks.params import ALGORITHMS, load_params
from tasks.rl import trainer
from tasks.rl.grpo import Grpo
from tasks.rl.ppo import Ppo


def _with_trl(job: Job) -> tuple[PreTrainedModel, Validation, list[dict]]:
    """Imported when called: TRL's trainers import MLflow, seconds that a run without them need not wait."""
    from tasks.rl import self_training, trl_grpo

    algorithms = {"grpo": trl_grpo.train, "offline_st": self_training.offline, "online_st": self_training.online}
    return algorithms[job.policy](job)


ENGINES = {
    ("kshot", "grpo"): partial(trainer.train, make_algorithm=Grpo),
    ("kshot", "ppo"): partial(trainer.train, make_algorithm=Ppo),
    ("kshot", "online_st"): _with_trl,
    ("kshot", "offline_st"): _with_trl,
    ("trl", "offline_st"): _with_trl,
    ("trl", "grpo"): _with_trl,
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--algorithm", choices=ALGORITHMS, required=True)
    parser.add_argument("--init", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    with launch.joined(params.launch, "tasks.rft"):
        job = Job(params, args.algorithm, args.pool, args.slice, args.init, args.seed, ROOT)
        try:
            model, validation, steps = ENGINES[params.rft.engine, args.algorithm](job)
        except pause.Paused as paused:
            print(paused, file=sys.stderr)
            sys.exit(pause.EXIT_CODE)
        job.save(model, args.out, validation, steps)
        Checkpoints(ROOT, job).clear()


if __name__ == "__main__":
    main()
