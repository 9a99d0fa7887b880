"""MLflow as a view of what is on disk: in a study's experiment one run for it, and below one a policy and grid point.

The only MLflow import of the project. A run is known by its fingerprint: policy, grid point, the parameters that reach
it and the data. Publishing the same files again leaves it as it is; publishing other files under the same fingerprint
replaces it.
"""

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

HOME = Path(".rft")
FINGERPRINT, CONTENT = "kshot.fingerprint", "kshot.content"
MAX_BATCH = 1000  # metrics in one request of MLflow
NAMELESS = re.compile(
    r"[^\w\-. :/]|(?<=[/.])[/.]", re.ASCII
)  # what MLflow takes in no name; graders are named by users
TRAINING_SECTIONS = {"base": [], "sft": ["slice", "sft"]}  # of a policy; every RFT algorithm has the default's
RFT_SECTIONS = ["slice", "warmup", "rft"]


@dataclass(frozen=True)
class Point:
    """Which policy of which study; `params` is the whole params.yaml as plain data. The base has no k and seed."""

    study: str
    policy: str
    k: int | None
    seed: int | None
    params: dict
    data_hash: str

    @property
    def name(self) -> str:
        return self.policy if self.k is None else f"{self.policy}-{self.k}-{self.seed}"

    @property
    def place(self) -> dict[str, str]:
        """Where it stands in the grid, by which MLflow's charts and tables group runs."""
        place = {"policy": self.policy, "k": self.k, "seed": self.seed}
        return {key: str(value) for key, value in place.items() if value is not None}

    @property
    def flat_params(self) -> dict[str, str]:
        """{'sft.steps': '100', ...}, of the sections that reach this policy: another `rft` makes no other SFT run."""
        sections = ["dataset", "model", "prompt", *TRAINING_SECTIONS.get(self.policy, RFT_SECTIONS), "reward", "grade"]
        return {f"{s}.{key}": str(value) for s in sections for key, value in self.params[s].items()}

    @property
    def fingerprint(self) -> str:
        return _sha256(json.dumps([self.study, self.name, self.flat_params, self.data_hash], sort_keys=True).encode())


@dataclass(frozen=True)
class Results:
    """What is on disk for a point. Curves are rows with a `step`; `pictures` have their boxes burned in."""

    curves: dict[str, list[dict]]  # {'train': rows, 'val': rows}
    metrics: dict[str, float]
    pictures: dict[str, Image.Image]
    predictions: Path
    model: str  # where the model folder is: weights are not copied

    @property
    def content(self) -> str:
        pixels = [[name, _sha256(picture.tobytes())] for name, picture in self.pictures.items()]
        said = json.dumps([self.curves, self.metrics, pixels, self.model], sort_keys=True).encode()
        return _sha256(said + self.predictions.read_bytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_hash(*files: Path) -> str:
    """SHA-256 over the contents of `files`, in order."""
    return _sha256("".join(_sha256(file.read_bytes()) for file in files).encode())


@contextmanager
def _locked() -> Iterator[None]:
    HOME.mkdir(exist_ok=True)
    with (HOME / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def init(study: str) -> tuple[MlflowClient, str]:
    """A client and the id of the study's experiment, both made at first use. What a killed publisher left RUNNING is
    ended.

    MLFLOW_TRACKING_URI, where set, says where; else it is .rft/mlflow.db. A lock is held: processes that create the
    tables of a fresh SQLite file at the same time break it for good.
    """
    own = f"sqlite:///{(HOME / 'mlflow.db').resolve()}"
    uri = os.environ.get("MLFLOW_TRACKING_URI", own)
    with _locked():
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(study)
        if experiment:
            _close_stale(client, experiment.experiment_id)
            return client, experiment.experiment_id
        artifacts = (HOME / "mlartifacts").resolve().as_uri() if uri == own else None
        return client, client.create_experiment(study, artifact_location=artifacts)


def _runs(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    return list(client.search_runs([experiment], filter_string=condition, max_results=1000))


def _close_stale(client: MlflowClient, experiment: str) -> None:
    """Called under the lock: no publisher is alive, so what is RUNNING was left by one that was killed."""
    for run in _runs(client, experiment, "attributes.status = 'RUNNING'"):
        if FINGERPRINT in run.data.tags:
            client.set_terminated(run.info.run_id, "KILLED")


def _metrics(row: dict, prefix: str, step: int, time: int) -> list[Metric]:
    """The finite numbers of a row; `time` is in milliseconds."""
    numbers = {
        NAMELESS.sub("_", key): v
        for key, v in row.items()
        if isinstance(v, int | float) and key != "step" and math.isfinite(v)
    }
    return [Metric(f"{prefix}/{key}", float(value), time, step) for key, value in numbers.items()]


def _parent(client: MlflowClient, experiment: str, study: str) -> str:
    """The id of the study's own run, made at first use: it holds nothing but its children."""
    fingerprint = _sha256(study.encode())
    found = _runs(client, experiment, f"tags.`{FINGERPRINT}` = '{fingerprint}'")
    if found:
        return found[0].info.run_id
    run_id = client.create_run(experiment, run_name=study, tags={FINGERPRINT: fingerprint}).info.run_id
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _create(client: MlflowClient, experiment: str, point: Point) -> Run:
    tags = {FINGERPRINT: point.fingerprint, **point.place, "data_hash": point.data_hash}
    run = client.create_run(experiment, run_name=point.name, tags=tags)
    params = {**point.place, **point.flat_params}
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in params.items()])
    dataset = Dataset(point.study, point.data_hash[:32], "local", json.dumps(point.params["dataset"]))
    client.log_inputs(run.info.run_id, datasets=[DatasetInput(dataset)])
    return run


def publish(point: Point, results: Results) -> str:
    """The id of the one run that shows `results`, a child of its study's: the one that is there, or a new one."""
    client, experiment = init(point.study)
    with _locked():
        run_id = _published(client, experiment, point, results)
        client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, _parent(client, experiment, point.study))
        return run_id


def _published(client: MlflowClient, experiment: str, point: Point, results: Results) -> str:
    found = _runs(client, experiment, f"tags.`{FINGERPRINT}` = '{point.fingerprint}'")
    for run in found:
        if run.info.status == "FINISHED" and run.data.tags.get(CONTENT) == results.content:
            return run.info.run_id
    for run in found:
        client.delete_run(run.info.run_id)
    run = _create(client, experiment, point)
    _fill(client, run, results)
    return run.info.run_id


def _fill(client: MlflowClient, run: Run, results: Results) -> None:
    run_id, time = run.info.run_id, run.info.start_time
    metrics = _metrics(results.metrics, "test", 0, time)
    for prefix, rows in results.curves.items():
        for row in rows:
            metrics += _metrics(row, prefix, row["step"], time)
    for start in range(0, len(metrics), MAX_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])
    for name, picture in results.pictures.items():
        client.log_image(run_id, picture, artifact_file=f"pictures/{name}.png")
    client.log_artifact(run_id, str(results.predictions))
    client.log_batch(run_id, tags=[RunTag(CONTENT, results.content), RunTag("model", results.model)])
    client.set_terminated(run_id, "FINISHED")
