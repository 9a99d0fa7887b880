"""A study in a workspace of its own, for jobs that run beside each other: no job writes into another's params.yaml.

The workspace is a copy of this checkout's files that git knows or would add, on the same DVC cache: what any job has
finished, the others take from there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from flows.cluster import Cluster
from flows.pipeline import PipelineError
from tasks.stage import SUPERVISE

DATASETS = "datasets"  # a user's data, which git ignores and no study changes


def make_workspace(folder: Path) -> Path:
    """A workspace at `folder`, absolute; one that is there already is left as it is, so that a requeued job resumes.

    `PipelineError` where this checkout is no git repository.
    """
    folder = folder.absolute()
    if folder.is_dir():
        return folder
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineError(f"jobs beside each other get copies of what git lists in {Path.cwd()}: {done.stderr}")
    new = folder.with_name(f"{folder.name}.new")  # so that a killed copy is not taken for a workspace
    shutil.rmtree(new, ignore_errors=True)
    for name in filter(None, done.stdout.split("\0")):
        if Path(name).is_file():  # else it was deleted, and not committed yet
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, new / name)
    if Path(DATASETS).is_dir():
        (new / DATASETS).symlink_to(Path(DATASETS).resolve())
    local = Path(".dvc/config.local")  # what this machine adds: remotes, credentials
    if local.is_file():
        shutil.copy2(local, new / local)
    for key, value in (("cache.dir", Repo().cache.local.path), ("core.no_scm", "true")):
        subprocess.run([sys.executable, "-m", "dvc", "config", "--local", key, value], cwd=new, check=True)
    new.rename(folder)
    return folder


def run_pipeline(workspace: Path, cluster: Cluster) -> None:
    """`python -m flows.pipeline` in `workspace`, which ends when this process does; `PipelineError` if it fails."""
    command = ["-m", "flows.pipeline", "--limit", str(cluster.limit), "--runner", cluster.runner]
    command += ["--address", cluster.address] if cluster.address else []
    home = {} if os.environ.get("PREFECT_API_URL") else {"PREFECT_HOME": str(workspace / ".rft" / "prefect")}
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISE), sys.executable, *command],
        cwd=workspace,
        stdin=subprocess.PIPE,
        env={**os.environ, **home, "PYTHONPATH": str(workspace)},
        start_new_session=True,
    )
    with process.stdin:
        if process.wait():
            raise PipelineError(f"the pipeline in {workspace} ended with exit code {process.returncode}")
