"""A trained folder's card with its scores: what was there before them is left, and the numbers are the report's."""

import csv

import pytest
from huggingface_hub import ModelCard

from tasks import report as stage
from tasks.reporting.study import StudyError
from tests.reporting.fake_study import make_params, write_study


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Other LoRA weights for RFT than for SFT are no fair comparison; the figures are not looked at."""
    work = write_study(tmp_path_factory.mktemp("study"), make_params(k=(1,), seed=(0, 1, 2), num_pictures=2), 6)
    stage.report(**vars(work))
    return work


def lines(work, policy: str) -> list[str]:
    return (work.out / "cards" / f"{policy}-1-0.md").read_text(encoding="utf-8").splitlines()


def test_every_trained_folder_has_one_and_its_own_is_left(work):
    assert {p.stem for p in (work.out / "cards").iterdir()} == {f.name for f in work.policies.glob("[!w]*-1-?")}
    card = ModelCard.load(work.out / "cards" / "grpo-1-2.md")
    assert card.data.license == "mit" and card.text.strip().startswith("# The card of grpo-1-2\n\n## Scores on test")
    assert "Scores" not in (work.policies / "grpo-1-2" / "README.md").read_text()


def test_the_numbers_are_those_of_the_table(work):
    with (work.out / "results.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["policy"] == "grpo")
    value = {name: float(row[name]) for name in row if name.startswith(("reward", "ap", "against_sft"))}
    found = lines(work, "grpo")
    for column, heading, sign in (
        ("reward", "reward", ""),
        ("ap", "ap", ""),
        ("against_sft", "reward minus SFT's", "+"),
        ("against_sft_ap50", "ap50 minus SFT's", "+"),
    ):
        mean, low, high = (f"{value[column + end]:{sign}.3f}" for end in ("", "_low", "_high"))
        assert f"| {heading} | {mean} | {low} to {high} |" in found
    assert f"Against SFT: {row['verdict']}." in found
    assert any("3 training seeds and the choice of test questions" in line for line in found)


def test_sft_is_not_compared_with_itself(work):
    assert not any("SFT" in line for line in lines(work, "sft"))


def test_what_is_not_fair_and_one_seed_are_said(tmp_path):
    params = make_params(k=(1,), seed=(0,), num_pictures=2)
    work = write_study(tmp_path, params, 6)
    history = work.policies / "grpo-1-0" / "history.json"
    history.write_text(history.read_text().replace('"max_pixels": null', '"max_pixels": 1000'))
    stage.report(**vars(work))
    said = " ".join(lines(work, "grpo"))
    assert "Not a fair comparison." in said and "the choice of test questions alone" in said


def test_a_card_that_is_missing_is_named(tmp_path):
    work = write_study(tmp_path, make_params(k=(1,), seed=(0,), num_pictures=2), 6)
    (work.policies / "grpo-1-0" / "README.md").unlink()
    with pytest.raises(StudyError, match=r"grpo-1-0/README\.md is missing; train grpo-1-0 again"):
        stage.report(**vars(work))
