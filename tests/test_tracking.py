"""Real MLflow on real files: what a reader of the UI finds after publishing, republishing, a lost database, a kill."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image, ImageColor

from tasks import stage, tracking
from tasks.params import load_params, validate
from tasks.publish import publish
from tasks.reporting.theme import LIGHT

ROOT = Path(__file__).resolve().parent.parent
STARTS = """
import sys, time
from tasks import tracking
time.sleep(max(0, float(sys.argv[1]) - time.time()))
print(tracking.init("digits")[1])
"""


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A working directory with nothing in it, which is where MLflow's files go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with MLflow's tables in it, which take six seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workplace(bare, database):
    """A working directory with a fresh database."""
    (bare / ".rft").mkdir()
    shutil.copy(database, bare / ".rft")
    return bare


@pytest.fixture
def params():
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    return validate({**raw, "grid": {"k": [1], "seed": [0], "algorithm": ["grpo"], "policy": ["sft", "grpo"]}}, "test")


@pytest.fixture
def study(workplace, params):
    """What the stages leave for a grid of one point: the arguments of `publish`."""
    pool, slices, policies, grades, report = map(workplace.joinpath, ("pool", "slices", "policies", "grades", "report"))
    for folder in (pool / "images", slices / "1-0", policies / "sft-1-0", policies / "grpo-1-0"):
        folder.mkdir(parents=True)
    (pool / "train.jsonl").write_text('{"id": "a"}\n')
    (pool / "test.jsonl").write_text('{"id": "t"}\n')
    (slices / "1-0" / "train.jsonl").write_text('{"id": "a"}\n')
    Image.new("RGB", (100, 50), "white").save(pool / "images" / "t.png")
    for name in ("base", "sft-1-0", "grpo-1-0"):
        (grades / name).mkdir(parents=True)
        row = {"image": "images/t.png", "gold": [[100, 200, 500, 600]], "boxes": [[700, 200, 900, 600]]}
        row |= {"confidences": [0.9], "asked": "six", "completion": f"said by {name}", "reward": 0.5}
        (grades / name / "predictions.jsonl").write_text(json.dumps(row) + "\n")
        metrics = {"policy": name, "k": None, "seed": None, "reward": 0.5}
        (grades / name / "details.json").write_text('{"failures": {"no_answer": 3}}')
        (grades / name / "metrics.json").write_text(json.dumps(metrics))
        if name != "base":
            history = {"seconds": 7.0, "best_step": 20, "num_labelled": 4, "budget": {"flops": 1e12}}
            history["steps"] = [{"step": s, "reward": s / 100, "kl": float("nan")} for s in (10, 20)]
            history["val"] = [{"step": 0, "reward": 0.4}]
            (policies / name / "history.json").write_text(json.dumps(history))
            (report / "cards").mkdir(parents=True, exist_ok=True)
            (report / "cards" / f"{name}.md").write_text(f"---\nlicense: mit\n---\n# The card of {name}\n")
            (policies / name / "model.safetensors").write_text(f"weights of {name}")
    (report / "figures").mkdir(parents=True)
    (report / "figures" / "score_over_k.png").write_bytes(b"a figure")
    (report / "report.html").write_text("the page")
    (report / "summary.txt").write_text("At k = 1, GRPO is better.\n\na table\n")
    told = {"interval": {"estimate": 0.25, "low": 0.1, "high": 0.4}, "p_holm": 0.01, "verdict": "better"}
    told = {"scores": {"sft": {"reward": {"estimate": 0.5, "low": 0.4}}}, "differences": {"grpo-sft": told}}
    (report / "statistics.json").write_text(json.dumps({"k=1": told}))
    return params, pool, slices, policies, grades, report


def runs(experiment: str = "digits") -> dict:
    """Run name -> run, of a study's points as MLflow shows them."""
    client, number = tracking.init(experiment)
    found = client.search_runs([number], "tags.policy != ''")
    assert len({run.info.run_name for run in found}) == len(found), "a run is there twice"
    return {run.info.run_name: run for run in found}


def test_a_policys_run_holds_its_curves_metrics_parameters_pictures_and_data(study):
    publish(*study)
    shown = runs()
    assert set(shown) == {"base", "sft-1-0", "grpo-1-0"}
    run, client = shown["grpo-1-0"], tracking.init("digits")[0]
    assert run.info.status == "FINISHED"
    curve = client.get_metric_history(run.info.run_id, "train/reward")
    assert [(point.step, point.value) for point in curve] == [(10, 0.1), (20, 0.2)]
    assert run.data.metrics["val/reward"] == 0.4
    assert run.data.metrics["test/reward"] == 0.5
    assert run.data.metrics["counts/failures/no_answer"] == 3 and run.data.metrics["counts/best_step"] == 20
    assert run.data.metrics["budget/flops"] == 1e12
    assert not any(key.startswith("budget/") for key in shown["base"].data.metrics)
    assert "train/kl" not in run.data.metrics  # NaN is no number to show
    assert run.data.params["rft.beta"] == str(study[0].rft.beta)
    assert not any(key.startswith("rft.") for key in shown["sft-1-0"].data.params)
    assert run.data.tags["model"].endswith("policies/grpo-1-0")
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["data_hash"][:32]
    picture = Image.open(client.download_artifacts(run.info.run_id, "pictures/00000.png"))
    colours = {picture.getpixel((x, y))[:3] for x in range(picture.width) for y in range(picture.height)}
    assert {ImageColor.getrgb(LIGHT.gold), ImageColor.getrgb(LIGHT.rft[0])} <= colours  # the truth and the policy


def test_the_points_stand_below_one_run_of_the_study(study):
    """By policy, k and seed as parameters and as tags, as the compare and parallel-coordinates views group them."""
    publish(*study)
    publish(*study)
    client, experiment = tracking.init("digits")
    parent = own_run(client, experiment)
    assert parent.info.status == "FINISHED"
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert {run.info.run_name for run in children} == {"base", "sft-1-0", "grpo-1-0"}
    for run in children:
        place = {key[5:]: value for key, value in run.data.params.items() if key.startswith("grid.")}
        expected = dict(zip(("policy", "k", "seed"), run.info.run_name.split("-"), strict=False))
        assert expected.items() <= run.data.tags.items()
        assert place == expected | {"init": "sft", "matched": "data"}
    client.delete_run(parent.info.run_id)
    publish(*study)
    again = own_run(client, experiment)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs().values()} == {again.info.run_id}


def own_run(client: MlflowClient, experiment: str):
    (run,) = [run for run in client.search_runs([experiment]) if run.info.run_name.startswith("digits ")]
    return run


def differing(shown: list) -> list[str]:
    """Parameters in which runs differ, in the order of MLflow's page: by the alphabet; one that a run lacks is one."""
    names = {name for run in shown for name in run.data.params}
    return [name for name in sorted(names) if len({run.data.params.get(name) for run in shown}) > 1]


def test_the_compare_view_opens_on_k_policy_seed_and_the_reward(study):
    """As MLflow's page chooses: three parameters that differ; the first metric that all runs have."""
    publish(*study)
    shown = list(runs().values())
    assert differing(shown)[:3] == ["grid.k", "grid.policy", "grid.seed"]
    assert next(iter(shown[0].data.metrics)) == "test/reward"
    assert not {name for name in shown[0].data.metrics if name.startswith("test/num")}


def test_the_studies_of_a_multirun_stand_beside_each_other(study):
    """Another reward, the same name: as `flows.sweep -m reward=detection,equal` makes them."""
    params, *folders = study
    first = publish(params, *folders)
    other = params.model_copy(update={"rft": params.rft.model_copy(update={"beta": 0.5})})
    second = publish(other, *folders)
    assert publish(params, *folders) == first and publish(other, *folders) == second
    client, experiment = tracking.init("digits")
    found = client.search_runs([experiment])
    parents = {run.info.run_id: run for run in found if "policy" not in run.data.tags}
    assert len(parents) == len({run.info.run_name for run in parents.values()}) == 2
    for parent, children in zip(
        sorted(parents, key=lambda run: parents[run].info.start_time), (first, second), strict=True
    ):
        of_it = {run.info.run_id for run in found if run.data.tags.get("mlflow.parentRunId") == parent}
        assert of_it == set(children)
        assert Path(client.download_artifacts(parent, "report/report.html")).read_text() == "the page"


def test_runs_that_are_matched_otherwise_are_told_apart(study):
    params, *folders = study
    flops = {"matched": "flops", "k_own": [], "k_matched": [1], "init": "warmup", "k_warmup": [1]}
    grids = params.grid, params.grid.model_copy(update=flops)
    published = [publish(params.model_copy(update={"grid": grid}), *folders) for grid in grids]
    client = tracking.init("digits")[0]
    for pair in zip(*published, strict=True):
        assert differing(list(map(client.get_run, pair))) == ["grid.init", "grid.matched"]


@pytest.mark.parametrize(("section", "changed"), [("report", {"num_pictures": 3}), ("launch", {"num_processes": 2})])
def test_another_way_to_show_or_run_a_study_is_no_other_study(study, section, changed):
    params, *folders = study
    first = publish(params, *folders)
    other = params.model_copy(update={section: getattr(params, section).model_copy(update=changed)})
    assert publish(other, *folders) == first


def test_a_study_that_grows_by_a_seed_is_still_that_study():
    small = load_params().model_dump()
    grown = {**small, "grid": {**small["grid"], "seed": [0, 1]}}
    other = {**small, "grid": {**small["grid"], "matched": "flops"}}
    assert tracking._of_study(small) == tracking._of_study(grown) != tracking._of_study(other)


def test_the_studys_run_holds_the_report_its_numbers_over_k_and_a_table_with_pictures(study):
    publish(*study)
    client, experiment = tracking.init("digits")
    run = own_run(client, experiment)
    number = run.info.run_id
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.note.content"] == "At k = 1, GRPO is better."
    assert Path(client.download_artifacts(number, "report/report.html")).read_text() == "the page"
    assert Path(client.download_artifacts(number, "report/figures/score_over_k.png")).read_bytes() == b"a figure"
    (point,) = client.get_metric_history(number, "report/grpo-sft/estimate")
    assert (point.step, point.value) == (1, 0.25) and run.data.metrics["report/sft"] == 0.5
    table = json.loads(Path(client.download_artifacts(number, "answers.json")).read_text())
    row = dict(zip(table["columns"], *table["data"], strict=True))  # there is one
    assert "answers.json" in run.data.tags["mlflow.loggedArtifacts"]  # so that the UI shows it as a table
    assert (row["k"], row["asked"], row["grpo"], row["grpo reward"]) == (1, "six", "said by grpo-1-0", 0.5)
    picture = Image.open(client.download_artifacts(number, row["picture"]["filepath"])).convert("RGB")
    colours = {colour for _, colour in picture.getcolors(100_000)}
    assert {ImageColor.getrgb(c) for c in (LIGHT.gold, LIGHT.sft, LIGHT.rft[0])} <= colours
    page = json.loads(stage.PAGES.read_text())["digits"]  # where the flow looks for it
    assert page == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{number}"


def test_another_report_takes_the_place_of_the_first_and_keeps_the_points(study):
    first = publish(*study)
    client, experiment = tracking.init("digits")
    before = own_run(client, experiment)
    (study[5] / "report.html").write_text("another page")
    assert publish(*study) == first
    after = own_run(client, experiment)
    assert after.info.run_id != before.info.run_id
    assert Path(client.download_artifacts(after.info.run_id, "report/report.html")).read_text() == "another page"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs().values()} == {after.info.run_id}
    assert len(json.loads(Path(client.download_artifacts(after.info.run_id, "answers.json")).read_text())["data"]) == 1


def test_each_policy_is_registered_with_its_card_by_where_it_lies(study):
    publish(*study)
    publish(*study)
    client, _ = tracking.init("digits")
    assert {model.name for model in client.search_registered_models()} == {"digits.sft-1-0", "digits.grpo-1-0"}
    (version,) = client.search_model_versions("name = 'digits.grpo-1-0'")
    assert version.run_id == runs()["grpo-1-0"].info.run_id
    folder = study[3] / "grpo-1-0"
    assert version.tags["folder"] == str(folder)
    assert version.tags["sha256"] == tracking.data_hash(folder / "model.safetensors")
    kept = [path for path in Path(".rft/mlartifacts").rglob("*") if path.is_file()]
    assert not any(b"weights of" in path.read_bytes() for path in kept)


def test_the_registered_card_is_the_reports(study):
    publish(*study)
    (version,) = tracking.init("digits")[0].search_model_versions("name = 'digits.grpo-1-0'")
    assert version.description == "# The card of grpo-1-0"


def test_new_weights_are_a_new_version_in_the_place_of_the_old(study):
    publish(*study)
    (study[3] / "grpo-1-0" / "model.safetensors").write_text("other weights")
    publish(*study)
    client, _ = tracking.init("digits")
    (version,) = client.search_model_versions("name = 'digits.grpo-1-0'")
    assert version.version in (2, "2")
    assert version.tags["sha256"] == tracking.data_hash(study[3] / "grpo-1-0" / "model.safetensors")
    (same,) = client.search_model_versions("name = 'digits.sft-1-0'")
    assert same.version in (1, "1")


def test_publishing_the_same_files_again_changes_nothing(study):
    assert publish(*study) == publish(*study)
    assert len(runs()) == 3


def test_new_results_under_the_same_parameters_replace_the_run(study):
    before = dict(zip(["base", "sft-1-0", "grpo-1-0"], publish(*study), strict=True))
    file = study[3] / "grpo-1-0" / "history.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "val": [{"step": 0, "reward": 0.9}]}))
    publish(*study)
    after = runs()
    assert after["grpo-1-0"].data.metrics["val/reward"] == 0.9
    assert {name for name in before if after[name].info.run_id == before[name]} == {"base", "sft-1-0"}


def test_another_prompt_makes_another_run_of_every_policy(params):
    other = params.model_copy(update={"prompt": params.prompt.model_copy(update={"detection": "Where is '{asked}'?"})})
    for policy in ("base", "sft", "grpo"):
        first, second = (tracking.Point("digits", policy, 1, 0, p.model_dump(), "0") for p in (params, other))
        assert first.fingerprint != second.fingerprint


def test_a_lost_database_comes_back_whole(study):
    publish(*study)
    before = {name: (run.data.metrics, run.data.params) for name, run in runs().items()}
    (study[1].parent / ".rft" / "mlflow.db").unlink()
    publish(*study)
    assert {name: (run.data.metrics, run.data.params) for name, run in runs().items()} == before


def test_what_a_killed_publisher_left_running_is_ended_or_replaced(study):
    params, *folders = study
    client, experiment = tracking.init("digits")
    other = tracking.Point("digits", "grpo", 9, 0, params.model_dump(), "0")
    left = tracking._create(client, experiment, other).info.run_id
    publish(params, *folders)
    assert client.get_run(left).info.status == "KILLED"
    assert {run.info.status for name, run in runs().items() if name != "grpo-9-0"} == {"FINISHED"}


def test_what_was_left_running_is_ended_at_the_next_start_of_any_study(workplace, params, monkeypatch):
    client, experiment = tracking.init("one")
    point = tracking.Point("one", "grpo", 9, 0, params.model_dump(), "0")
    ours = tracking._create(client, experiment, point)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tracking.socket, "gethostname", lambda: "elsewhere")
        theirs = tracking._create(client, experiment, point)
    tracking.init("another")
    assert [client.get_run(run.info.run_id).info.status for run in (ours, theirs)] == ["KILLED", "RUNNING"]


def test_a_run_of_another_machine_that_is_still_running_is_left_alone(study, monkeypatch):
    """They may share a server; its publisher may be alive."""
    params, *folders = study
    client, experiment = tracking.init("digits")
    point = tracking.Point("digits", "grpo", 9, 0, params.model_dump(), "0")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tracking.socket, "gethostname", lambda: "elsewhere")
        theirs = tracking._create(client, experiment, point)
    publish(params, *folders)
    assert client.get_run(theirs.info.run_id).info.status == "RUNNING"


@pytest.mark.slow
def test_eight_processes_may_make_the_database_at_once(bare):
    start = str(time.time() + 10)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STARTS, start]
    starts = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    experiments = {process.communicate(timeout=120)[0].strip() for process in starts}
    assert [process.returncode for process in starts] == [0] * 8
    assert len(experiments) == 1
    assert (
        len(MlflowClient(f"sqlite:///{bare}/.rft/mlflow.db").search_experiments(filter_string="name = 'digits'")) == 1
    )
