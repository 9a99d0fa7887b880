"""What SFT and RFT must share: a difference is named, equality is silent, what is not known is not called equal."""

import csv
import json

import pytest

from tasks import report as stage
from tasks.overview import overview
from tasks.reporting.fairness import checked, differences, unknown
from tasks.reporting.study import read_study
from tests.reporting.fake_study import make_params


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def read(workplace):
    return read_study(workplace.params.grid, workplace.grades, workplace.policies)


def test_a_fair_study_has_no_warning(workplace):
    assert differences(read(workplace)) == () and unknown(read(workplace)) == ()


LORA = {"r": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("model", {"lora": LORA}, "differ in PEFT mode: LoRA {'r': 8,"),
        ("model", {"trained": "language"}, "differ in trained part: language against all"),
        ("model", {"dtype": "bfloat16"}, "differ in dtype: bfloat16 against float32"),
        ("model", {"compute": "bfloat16"}, "differ in dtype: float32, computed in bfloat16 against float32"),
        ("model", {"max_pixels": 200_000}, "differ in resolution: None to 200000 pixels against None to None pixels"),
        ("prompt", {"detection": "Find {asked}"}, "differ in prompt: {'detection': 'Find {asked}'"),
    ],
)
def test_another_setting_of_one_run_is_named_with_both_values(workplace, section, values, said):
    path = workplace.policies / "sft-4-1" / "history.json"
    change(path, **{section: json.loads(path.read_text())[section] | values})
    (warning,) = differences(read(workplace))
    assert said in warning and warning.endswith("at k = 4, seed 1.")


def test_other_training_pictures_are_named(workplace):
    change(workplace.policies / "grpo-1-0" / "history.json", train_sha256="f" * 64)
    (warning,) = differences(read(workplace))
    assert "differ in training pictures" in warning and "sha256 ffffffffffff at k = 1, seed 0" in warning


def test_another_existence_mode_is_named(workplace):
    change(workplace.grades / "grpo-1-0" / "metrics.json", existence="all")
    (warning,) = differences(read(workplace))
    assert warning == "SFT and GRPO differ in existence mode: ground_truth against all at k = 1, seed 0."


def test_other_truth_is_named(workplace):
    path = workplace.grades / "sft-1-0" / "predictions.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "gold_label": "cat"}), *others]) + "\n")
    (warning,) = differences(read(workplace))
    assert "differ in test set" in warning


@pytest.mark.parametrize(
    ("mode", "key", "rft", "of_all"),
    [("steps", "gradient_steps", 80, 100), ("flops", "flops", 90e12, 91e12)],  # beside a warm-up of 20 and 1e12
)
def test_a_budget_that_is_more_than_a_tenth_off_is_named_in_red(workplace, mode, key, rft, of_all):
    """SFT's against that of RFT and its warm-up; a tenth is what is allowed."""
    params = matched(workplace.params, mode)
    for point in ("1-0", "1-1", "4-0", "4-1"):
        spend(workplace.policies / f"sft-{point}", **{key: of_all * 0.91})
    assert differences(read_study(params.grid, workplace.grades, workplace.policies)) == ()
    spend(workplace.policies / "sft-4-1", **{key: of_all * 0.89})
    stage.report(**{**vars(workplace), "params": params})
    page = (workplace.out / "report.html").read_text()
    warning = page[page.index('class="warning"') : page.index("</header>")]
    assert f"which are to be alike (grid.matched: {mode})" in warning and "at k = 4, seed 1." in warning
    for file in ("report.html", "report.md", "summary.txt"):
        assert f"Matched by {mode} (grid.matched): SFT t" in (workplace.out / file).read_text()


def matched(params, mode):
    return make_params(grid={**params.grid.model_dump(), "matched": mode, "k_own": [], "k_matched": params.grid.k})


def spend(folder, **counts):
    path = folder / "history.json"
    change(path, budget=json.loads(path.read_text())["budget"] | counts)


def test_sft_that_tells_no_budget_is_not_called_equal(workplace):
    params = make_params(
        grid={**workplace.params.grid.model_dump(), "matched": "flops", "k_own": [], "k_matched": [1, 4]}
    )
    for point in ("1-0", "1-1", "4-0", "4-1"):
        spend(workplace.policies / f"sft-{point}", flops=91e12)
    change(workplace.policies / "sft-4-1" / "history.json", budget=None)
    study = read_study(params.grid, workplace.grades, workplace.policies)
    assert differences(study) == () and unknown(study) == ("FLOPs",) and "FLOPs" not in checked(study)


def test_by_default_the_labelled_samples_are_matched(workplace):
    assert "labelled samples" in checked(read(workplace))


def test_an_old_history_is_not_called_equal(workplace):
    path = workplace.policies / "sft-4-1" / "history.json"
    change(path, model=None, train_sha256=None)
    assert differences(read(workplace)) == ()
    assert unknown(read(workplace)) == ("PEFT mode", "trained part", "dtype", "resolution", "training pictures")
    stage.report(**vars(workplace))
    page = (workplace.out / "report.html").read_text()
    assert "some history does not tell: PEFT mode, trained part, dtype, resolution, training pictures." in page
    assert "Not a fair comparison" not in page


def test_the_warning_stands_at_the_top_of_every_form(workplace):
    change(workplace.grades / "grpo-1-0" / "metrics.json", existence="all")
    stage.report(**vars(workplace))
    page = (workplace.out / "report.html").read_text()
    assert page.index('class="warning" role="alert"') < page.index("<h2>Scores")
    assert "No difference." not in page
    said = "SFT and GRPO differ in existence mode: ground_truth against all at k = 1, seed 0."
    markdown = (workplace.out / "report.md").read_text()
    assert "**Not a fair comparison.** SFT and GRPO differ in existence mode" in markdown
    first, verdict = (workplace.out / "summary.txt").read_text().split("\n\n")[0].splitlines()  # Prefect, MLflow's note
    assert first == f"Not a fair comparison. {said}" and verdict.startswith("Over 2 values of k, GRPO is")
    rows = list(csv.DictReader((workplace.out / "results.csv").open()))
    assert {(row["policy"], row["unfair"]) for row in rows} == {("base", ""), ("sft", ""), ("grpo", said)}


def test_an_overview_repeats_the_warning(workplace):
    change(workplace.grades / "grpo-1-0" / "metrics.json", existence="all")
    stage.report(**vars(workplace))
    overview([workplace.out], workplace.out / "overview")
    page, text = ((workplace.out / "overview" / f"overview.{form}").read_text() for form in ("html", "md"))
    assert 'role="alert"><b>digits: not a fair comparison.</b> SFT and GRPO differ in existence mode' in page
    assert "> **digits: not a fair comparison.** SFT and GRPO differ in existence mode" in text
