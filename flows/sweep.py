"""Run whole studies: compose `conf/` -> params.yaml -> the graph, one study a Hydra job.

    python -m flows.sweep +experiment=fsod                               # one study
    python -m flows.sweep -m +experiment=fsod reward=detection,equal     # a study a value
    python -m flows.sweep +experiment=fsod_beta                          # an experiment that says itself what it sweeps

    python -m flows.sweep +experiment=fsod cluster.runner=dask          # its stages on workers: docs/scaling.md
    python -m flows.sweep -m hydra/launcher=submitit_slurm reward=detection,equal   # each study a job of SLURM

A study's report and params.yaml are kept in Hydra's folder of the job, studies/<study>/<time>[/<job>]. DVC keeps the
rest, so a study that shares stages with an earlier one does not run them again. Studies go on after a failed one,
which is named at once; the exit code is then 1. A launcher that runs jobs beside each other gives each a workspace of
its own (flows.apart); with Hydra's own they share this one, one after the other.
"""

import shlex
import shutil
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flows.apart import make_workspace, run_pipeline
from flows.cluster import Cluster, ClusterError
from flows.compose import CONF, PARAMS, resolve, write_params
from flows.pipeline import REPORT, PipelineError, alone, run
from tasks.params import ParamsError

IN_TURN = "BasicLauncher"  # Hydra's own, which runs a sweep's jobs in this process


def run_study(params: dict, overrides: list[str], kept: Path, cluster: Cluster) -> None:
    """Write params.yaml, run the whole graph, copy the report and the parameters to `kept`."""
    with alone():  # first: params.yaml is not changed under another study that runs here
        write_params(params, overrides)
        run(params["study"], [], cluster)
        _keep(Path(), kept)
    print(f"study {params['study']}: {kept / REPORT.name} (params.yaml is now this study's)", flush=True)


def run_study_apart(params: dict, overrides: list[str], kept: Path, cluster: Cluster) -> None:
    """The same in a workspace below `kept`, which shares this one's cache. What is there already is gone on with."""
    workspace = make_workspace(kept / "workspace")
    write_params(params, overrides, workspace / PARAMS)
    run_pipeline(workspace, cluster)
    _keep(workspace, kept)
    print(f"study {params['study']}: {kept / REPORT.name}", flush=True)


def _keep(workspace: Path, kept: Path) -> None:
    shutil.copytree(workspace / REPORT, kept / REPORT.name, dirs_exist_ok=True)
    shutil.copy(workspace / PARAMS, kept)


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    in_turn = job.launcher._target_.endswith(IN_TURN)
    try:
        if not in_turn and job.mode is RunMode.RUN:
            raise PipelineError(f"launcher {job.runtime.choices['hydra/launcher']}: Hydra uses it with -m alone")
        cluster = Cluster(**OmegaConf.to_container(config.cluster))
        params = resolve(config, overrides)
        (run_study if in_turn else run_study_apart)(params, overrides, Path(job.runtime.output_dir), cluster)
    except (ClusterError, ParamsError, PipelineError) as error:  # of several, Hydra would name the first alone
        print(f"study {config.study} ({shlex.join(overrides)}) failed: {error}", file=sys.stderr, flush=True)
        raise


if __name__ == "__main__":
    main()
