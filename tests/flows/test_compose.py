"""conf/ and params.yaml: the committed file is what conf/ gives, and nothing bad gets into it."""

import re
from pathlib import Path

import pytest
import yaml

from flows.compose import CONF, compose, main, render
from tasks.params import load_params

ROOT = CONF.parent
FILES = sorted((CONF / "experiment").rglob("*.yaml"))
EXPERIMENTS = [str(file.relative_to(CONF / "experiment").with_suffix("")) for file in FILES]  # paper/visual_rft_ovd
GROUPS = ["dataset", "slice", "model", "prompt", "sft", "rft", "reward", "grade", "grid", "launch"]
TINY = ["grid=single", "dataset=digits", "model=tiny", "sft=tiny", "sft@warmup=tiny", "rft=tiny"]


def test_the_committed_params_are_what_conf_gives():
    assert (ROOT / "params.yaml").read_text() == render(compose([]), [])


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_is_valid(group):
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    assert options
    for option in options:
        trl = ["rft.engine=trl"] if option.startswith("zero") else []  # the only engine that DeepSpeed goes with
        compose([f"{group}={option}", *trl])


def test_every_model_of_the_hub_is_pinned_to_a_commit_of_its_own():
    """A preset inherits from another of its family: none may keep that one's commit."""
    models = [compose([f"model={file.stem}"])["model"] for file in (CONF / "model").glob("*.yaml")]
    pinned = {model["path"]: model["revision"] for model in models if not (ROOT / model["path"]).is_dir()}
    assert len(pinned) == len(models) - 1 == len(set(pinned.values()))
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in pinned.values())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_full_and_tiny_and_says_how_to_run_it(experiment):
    assert compose([f"+experiment={experiment}"])["study"] == experiment.replace("/", "_")
    assert compose([f"+experiment={experiment}", *TINY])["model"]["path"] == "models/tiny"
    assert f"python -m flows.sweep +experiment={experiment}" in (CONF / "experiment" / f"{experiment}.yaml").read_text()


def test_conf_has_no_interpolation_that_only_hydra_main_can_resolve():
    for file in CONF.rglob("*.yaml"):
        assert "${hydra:" not in file.read_text(), file


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("lrr=1", "lrr"),  # a typo, which Hydra refuses
        ("+lrr=1", "lrr"),  # which it lets through
        ("+rft.lrr=1", "rft.lrr"),
        ("~rft.beta", "rft.beta"),
        ("~grade", "grade"),
        ("rft.beta=-1", "rft.beta"),
        ("rft.beta=nan", "rft.beta"),
        ("sft.learning_rate=inf", "sft.learning_rate"),
        ("sft.learning_rate=0", "sft.learning_rate"),
        ("rft.steps=ten", "rft.steps"),
        ("rft.steps=1.5", "rft.steps"),
        ("rft.steps='3'", "rft.steps"),
        ("rft.scale_rewards=1", "rft.scale_rewards"),
        ("rft.steps=null", "rft.steps"),
        ("rft.steps=???", "rft.steps"),
        ("rft=none_such", "rft/none_such"),
        ("+experiment=none_such", "experiment/none_such"),
        ("study=${none_such}", "study"),
        ("rft.beta", "rft.beta"),  # no value
        ("grid.k=[]", "grid.k"),
        ("grid.k=[1,1]", "grid"),
        ("grid.policy=[sft]", "grid"),
        ("reward.detection.iou_threshold=1.1", "reward.detection.iou_threshold"),
        ("prompt.detection=Hello", "prompt"),
        ("dataset.num_train=0", "dataset.digits.num_train"),
    ],
)
def test_a_bad_override_ends_with_2_names_the_key_and_writes_nothing(override, key, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([override]) == 2
    first, *rest = capsys.readouterr().err.replace(override, "", 1).splitlines()
    assert key in "\n".join([first, *rest])  # the key, and not only the echo of the override
    assert not Path("params.yaml").exists()


def test_what_is_written_is_read_back_as_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["rft.learning_rate=1e-6", "rft.beta=0"]) == 0
    rft = yaml.safe_load(Path("params.yaml").read_text())["rft"]
    assert (rft["learning_rate"], rft["beta"]) == (1e-6, 0.0)
    assert all(isinstance(rft[key], float) for key in ("learning_rate", "beta"))
    assert load_params().rft.learning_rate == 1e-6


def test_a_matched_study_says_at_which_k_sft_waits_for_rft():
    grid = compose(["grid.k=[1,2]"])["grid"]
    assert (grid["matched"], grid["k_own"], grid["k_matched"]) == ("data", [1, 2], [])
    grid = compose(["grid.k=[1,2]", "grid.matched=flops"])["grid"]
    assert (grid["matched"], grid["k_own"], grid["k_matched"]) == ("flops", [], [1, 2])


@pytest.mark.parametrize(
    ("overrides", "init"),
    [([], "sft"), (["sft.steps=40"], "warmup"), (["warmup.steps=0"], "warmup"), (["grid.matched=steps"], "warmup")],
)
def test_rft_begins_with_sft_unless_the_warmup_is_another_training(overrides, init):
    grid = compose(["grid.k=[1,2]", *overrides])["grid"]
    assert (grid["init"], grid["k_warmup"]) == (init, [1, 2] if init == "warmup" else [])


def test_the_file_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["grid.k=[1,2]", "+experiment=fsod"])
    first = Path("params.yaml").read_text().splitlines()[0]
    assert first == "# Made from conf/ by: python -m flows.compose 'grid.k=[1,2]' +experiment=fsod"
