"""Run whole studies: compose `conf/` -> params.yaml -> the graph, one study a Hydra job.

    python -m flows.sweep +experiment=fsod                               # one study
    python -m flows.sweep -m +experiment=fsod reward=detection,equal     # a study a value
    python -m flows.sweep +experiment=fsod_beta                          # an experiment that says itself what it sweeps

A study's report and params.yaml are kept in Hydra's folder of the job, studies/<study>/<time>[/<job>]. DVC keeps the
rest, so a study that shares stages with an earlier one does not run them again. Studies go on after a failed one,
which is named at once; the exit code is then 1.
"""

import shlex
import shutil
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from flows.compose import CONF, PARAMS, resolve, write_params
from flows.pipeline import REPORT, PipelineError, run
from tasks.params import ParamsError

NUM_PARALLEL_STAGES = 2


def run_study(params: dict, overrides: list[str], kept: Path) -> None:
    """Write params.yaml, run the whole graph, copy the report and the parameters to `kept`."""
    write_params(params, overrides)
    run(params["study"], targets=[], limit=NUM_PARALLEL_STAGES)
    shutil.copytree(REPORT, kept / REPORT.name)
    shutil.copy(PARAMS, kept)
    print(f"study {params['study']}: {kept / REPORT.name} (params.yaml is now this study's)", flush=True)


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    try:
        run_study(resolve(config, overrides), overrides, Path(job.runtime.output_dir))
    except (ParamsError, PipelineError) as error:  # of several, Hydra would name the first alone
        print(f"study {config.study} ({shlex.join(overrides)}) failed: {error}", file=sys.stderr, flush=True)
        raise


if __name__ == "__main__":
    main()
