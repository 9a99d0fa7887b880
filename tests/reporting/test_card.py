"""A trained folder's card with its scores: what was there before them is left, and the numbers are the report's."""

import csv
import io

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from tasks import report as stage
from tasks.reporting.card import cards
from tasks.reporting.study import StudyError
from tests.reporting.fake_study import make_params, write_study

AGAINST = "against_sft,against_sft_low,against_sft_high,verdict,unfair"
RESULTS = f"""k,policy,num_seeds,reward,reward_low,reward_high,ap,ap_low,ap_high,{AGAINST}
1,base,1,0.4,0.3,0.5,0.3,0.2,0.4,,,,,
1,sft,1,0.5,0.4,0.6,0.4,0.3,0.5,,,,,
1,grpo,1,0.75,0.7,0.8,0.5,0.4,0.6,0.25,0.1,0.4,better,SFT and GRPO differ.
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder of a report of one k and three seeds."""
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


def test_a_card_by_hand(work):
    params = make_params(k=(1,), seed=(0,))
    found = cards(params, pd.read_csv(io.StringIO(RESULTS)), work.policies)
    assert set(found) == {"sft-1-0", "grpo-1-0"}
    text = found["grpo-1-0"]
    assert text.startswith("---\nlicense: mit\n---\n# The card of grpo-1-0\n\n## Scores on test")
    assert "| reward | 0.750 | 0.700 to 0.800 |" in text
    assert "| reward minus SFT's | +0.250 | +0.100 to +0.400 |" in text
    assert "| ap | 0.500 | 0.400 to 0.600 |" in text
    assert "Against SFT: better. Not a fair comparison. SFT and GRPO differ." in text
    assert "the choice of test questions alone" in text  # one seed
    assert "Against SFT" not in found["sft-1-0"] and "minus SFT" not in found["sft-1-0"]


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
