"""MLflow as a view of what is on disk: in a study's experiment one run for it, which holds its report, and below one a
policy and grid point; each trained policy in the model registry, by where it lies and not as a copy.

The only MLflow import of the project. A study is known by its name and its parameters, so that those of a multirun
stand beside each other in one experiment; a run of it by its fingerprint: study, policy, grid point and data.
Publishing the same files again leaves it as it is; publishing other files under the same fingerprint replaces it, and
its version in the registry.

Names are chosen for MLflow's compare view, which opens on the first three parameters that differ, by the alphabet, and
on the first metric that all runs have: grid.k, grid.policy, grid.seed and test/reward. What one run lacks differs too:
the base also has grid.init and grid.matched, which do not reach it.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, LoggedModelStatus, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

HOME = Path(".rft")
PAGES = HOME / "mlflow.json"  # {study: address of its run in the UI}
UI = "http://127.0.0.1:5000"  # where `make ui` shows a database that no server stands before
FINGERPRINT, CONTENT, PUBLISHER = "kshot.fingerprint", "kshot.content", "kshot.publisher"
# What makes no other study: how it is shown, by how many processes it is run, and how far its grid goes
NOT_THE_STUDY, OF_THE_GRID = ("report", "launch", "grid"), ("matched", "init")
MAX_BATCH = 1000  # metrics in one request of MLflow
MAX_DESCRIPTION = 5000  # characters that the registry holds of a card
NAMELESS = re.compile(r"[^\w\-. :/]|(?<=[/.])[/.]", re.ASCII)  # MLflow takes it in no name; users name graders
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
        return _sha256(json.dumps([_of_study(self.params), self.name, self.data_hash]).encode())


@dataclass(frozen=True)
class Results:
    """What is on disk for a point. Curves are rows with a `step`; `pictures` have their boxes burned in. `counts` say
    how a number came about, and compare nothing: sizes, failures, seconds. `budget` is what this one training spent.
    """

    curves: dict[str, list[dict]]  # {'train': rows, 'val': rows}
    metrics: dict[str, float]  # of the test; the first is what MLflow's views open on
    counts: dict[str, float]
    budget: dict[str, float]
    pictures: dict[str, Image.Image]
    predictions: Path
    model: str  # where the model folder is: weights are not copied
    card: str | None = None  # of a trained policy
    weights_hash: str | None = None

    @property
    def content(self) -> str:
        pixels = [[name, _sha256(picture.tobytes())] for name, picture in self.pictures.items()]
        told = [self.curves, self.metrics, self.counts, self.budget]
        said = [*told, pixels, self.model, self.card, self.weights_hash]
        return _sha256(json.dumps(said, sort_keys=True).encode() + self.predictions.read_bytes())


@dataclass(frozen=True)
class Reported:
    """What a study has found. `answers` are the columns of a table, all of one length; one may hold pictures.

    `metrics` are rows with a `step`, which is the k: MLflow then draws them over k.
    """

    study: str
    params: dict  # the whole params.yaml as plain data
    folder: Path  # of the report
    said: str
    metrics: list[dict]
    answers: dict[str, list]

    @property
    def content(self) -> str:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        shown = {
            column: [_sha256(v.tobytes()) if isinstance(v, Image.Image) else v for v in values]
            for column, values in self.answers.items()
        }
        return _sha256(json.dumps([data_hash(*files), self.said, self.metrics, shown]).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_hash(*files: Path) -> str:
    """SHA-256 over the contents of `files`, in order."""
    return _sha256("".join(map(_file_hash, files)).encode())


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked() -> Iterator[None]:
    HOME.mkdir(exist_ok=True)
    with (HOME / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def init(study: str) -> tuple[MlflowClient, str]:
    """A client and the id of the study's experiment, both made at first use. What a killed publisher of any study left
    RUNNING is ended.

    MLFLOW_TRACKING_URI, where set, says where; else it is .rft/mlflow.db. A lock is held: processes that create the
    tables of a fresh SQLite file at the same time break it for good.
    """
    own = f"sqlite:///{(HOME / 'mlflow.db').resolve()}"
    uri = os.environ.get("MLFLOW_TRACKING_URI", own)
    with _locked():
        client = MlflowClient(uri)
        _close_stale(client)
        experiment = client.get_experiment_by_name(study)
        if experiment:
            return client, experiment.experiment_id
        artifacts = (HOME / "mlartifacts").resolve().as_uri() if uri == own else None
        return client, client.create_experiment(study, artifact_location=artifacts)


def _runs(client: MlflowClient, experiments: list[str], condition: str) -> list[Run]:
    return list(client.search_runs(experiments, filter_string=condition, max_results=1000))


def _close_stale(client: MlflowClient) -> None:
    """Called under the lock: no publisher is alive in this workspace, so what one left RUNNING was killed, in whichever
    study's experiment. Of other workspaces and machines, which may share the server, nothing is known.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in _runs(client, experiments, "attributes.status = 'RUNNING'"):
        if run.data.tags.get(PUBLISHER) == _publisher():
            client.set_terminated(run.info.run_id, "KILLED")


def _publisher() -> str:
    """This workspace of this machine: what the lock is of."""
    return f"{socket.gethostname()}:{Path.cwd()}"


def _metrics(row: dict, prefix: str, step: int, time: int) -> list[Metric]:
    """The finite numbers of a row; `time` is in milliseconds."""
    numbers = {
        NAMELESS.sub("_", key): v
        for key, v in row.items()
        if isinstance(v, int | float) and key != "step" and math.isfinite(v)
    }
    return [Metric(f"{prefix}/{key}", float(value), time, step) for key, value in numbers.items()]


def _find(client: MlflowClient, experiment: str, fingerprint: str) -> list[Run]:
    return _runs(client, [experiment], f"tags.`{FINGERPRINT}` = '{fingerprint}'")


def _of_study(params: dict) -> str:
    """The fingerprint of a study's own run: its name and all that makes its numbers, so that a study with one k more
    is still that study.
    """
    made_by = {section: value for section, value in params.items() if section not in NOT_THE_STUDY}
    made_by |= {f"grid.{key}": params["grid"][key] for key in OF_THE_GRID}
    return _sha256(json.dumps(made_by, sort_keys=True).encode())


def _name(study: str, fingerprint: str) -> str:
    """Of a study's run, which tells studies of one name apart."""
    return f"{study} {fingerprint[:8]}"


def _create(client: MlflowClient, experiment: str, point: Point) -> Run:
    tags = {FINGERPRINT: point.fingerprint, PUBLISHER: _publisher(), **point.place, "data_hash": point.data_hash}
    tags["study"] = _name(point.study, _of_study(point.params))
    run = client.create_run(experiment, run_name=point.name, tags=tags)
    grid = point.place | {key: point.params["grid"][key] for key in OF_THE_GRID}
    params = {f"grid.{key}": value for key, value in grid.items()} | point.flat_params
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in params.items()])
    dataset = Dataset(point.study, point.data_hash[:32], "local", json.dumps(point.params["dataset"]))
    client.log_inputs(run.info.run_id, datasets=[DatasetInput(dataset)])
    return run


def publish_study(reported: Reported) -> str:
    """The id of the one run that shows the study as a whole: the one that is there, or a new one in its place. Its
    address is left in PAGES.
    """
    client, experiment = init(reported.study)
    with _locked():
        fingerprint = _of_study(reported.params)
        found = _find(client, experiment, fingerprint)
        shown = _shown(found, reported.content)
        if shown is None:
            tags = {FINGERPRINT: fingerprint, PUBLISHER: _publisher(), MLFLOW_RUN_NOTE: reported.said}
            shown = client.create_run(experiment, run_name=_name(reported.study, fingerprint), tags=tags)
            _fill_study(client, shown, reported)
        for old in (run for run in found if run.info.run_id != shown.info.run_id):
            for child in _runs(client, [experiment], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{old.info.run_id}'"):
                client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, shown.info.run_id)
            client.delete_run(old.info.run_id)
        _leave_page(client, experiment, reported.study, shown.info.run_id)
        return shown.info.run_id


def _leave_page(client: MlflowClient, experiment: str, study: str, run_id: str) -> None:
    pages = json.loads(PAGES.read_text(encoding="utf-8")) if PAGES.exists() else {}
    server = client.tracking_uri if client.tracking_uri.startswith("http") else UI
    pages[study] = f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    PAGES.write_text(json.dumps(pages, indent=1) + "\n", encoding="utf-8")


def _fill_study(client: MlflowClient, run: Run, reported: Reported) -> None:
    run_id, time = run.info.run_id, run.info.start_time
    metrics = [metric for row in reported.metrics for metric in _metrics(row, "report", row["step"], time)]
    client.log_batch(run_id, metrics=metrics)
    client.log_artifacts(run_id, str(reported.folder), "report")
    if reported.answers:
        client.log_table(run_id, reported.answers, "answers.json")
    client.set_tag(run_id, CONTENT, reported.content)
    client.set_terminated(run_id, "FINISHED")


def publish(point: Point, results: Results) -> str:
    """The id of the one run that shows `results`, a child of its study's, which must be there: the one that is there,
    or a new one.
    """
    client, experiment = init(point.study)
    with _locked():
        run_id = _published(client, experiment, point, results)
        (parent,) = _find(client, experiment, _of_study(point.params))
        client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent.info.run_id)
        return run_id


def _shown(found: list[Run], content: str) -> Run | None:
    """The run among `found` that is whole and holds `content`."""
    whole = (run for run in found if run.info.status == "FINISHED" and run.data.tags.get(CONTENT) == content)
    return next(whole, None)


def _published(client: MlflowClient, experiment: str, point: Point, results: Results) -> str:
    found = _find(client, experiment, point.fingerprint)
    if shown := _shown(found, results.content):
        return shown.info.run_id
    for run in found:
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            client.delete_model_version(version.name, version.version)
        client.delete_run(run.info.run_id)
    run = _create(client, experiment, point)
    if results.card is not None:
        _register(client, run, point, results)
    _fill(client, run, results)
    return run.info.run_id


def _register(client: MlflowClient, run: Run, point: Point, results: Results) -> None:
    """A new version of <study>.<policy>-<k>-<seed> in the registry, with its card. MLflow wants a model's files to be
    its own, so a model without any (external, in its words) is made for the version to name.

    The tag `folder` says where the weights lie and `sha256` which: another training overwrites the folder.
    """
    name = re.sub("[/:]", "_", f"{point.study}.{point.name}")  # the registry takes neither
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    tags = {"folder": str(Path(results.model).resolve()), "sha256": results.weights_hash, **point.place}
    external = {MLFLOW_MODEL_IS_EXTERNAL: "true"}
    model = client.create_logged_model(
        run.info.experiment_id, NAMELESS.sub("_", point.name), run.info.run_id, tags | external
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.create_model_version(
        name, model.artifact_location, run.info.run_id, tags, description=results.card[:MAX_DESCRIPTION],
        model_id=model.model_id,
    )  # fmt: skip


def _fill(client: MlflowClient, run: Run, results: Results) -> None:
    run_id, time = run.info.run_id, run.info.start_time
    metrics = _metrics(results.metrics, "test", 0, time) + _metrics(results.counts, "counts", 0, time)
    metrics += _metrics(results.budget, "budget", 0, time)
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
