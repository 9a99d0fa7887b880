"""A paper's figures beside a study's, only where it names them."""

import pytest
import yaml

from flows.compose import CONF, compose
from tasks.report import report
from tasks.reporting.published import FILE
from tasks.reporting.study import StudyError
from tasks.scoring.metrics import METRICS
from tests.reporting.fake_study import make_params, write_study

PAPER = sorted((CONF / "experiment" / "paper").glob("*.yaml"))
TABLES = yaml.safe_load(FILE.read_text())


def named(name: str | None):
    report = {"resamples": 100, "confidence": 0.95, "num_pictures": 4, "published": name}
    return make_params(k=(1, 4), seed=(0,), report=report)


def test_the_report_shows_both_with_a_dash_where_the_paper_says_nothing(tmp_path):
    params = named("visual_rft_coco8_7b")  # k = 4 alone
    work = write_study(tmp_path, params)
    report(params, work.grades, work.policies, work.pool, tmp_path / "report")
    text, page = ((tmp_path / "report" / file).read_text() for file in ("report.md", "report.html"))
    assert "## Beside the published figures" in text and "Beside the published figures" in page
    rows = [line for line in text.split("Beside the published")[1].splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:3] for row in rows[2:5]] == [
        ["| 1", "Base", "0.430"], ["| 1", "SFT", "\N{EN DASH}"], ["| 1", "GRPO", "\N{EN DASH}"]
    ]  # fmt: skip
    assert "| 4 | GRPO | 0.543 | 0." in text and "arXiv 2503.01785" in page
    assert "published figures" not in plain(tmp_path)


def plain(tmp_path) -> str:
    params = named(None)
    work = write_study(tmp_path / "plain", params)
    report(params, work.grades, work.policies, work.pool, tmp_path / "plain" / "report")
    return (tmp_path / "plain" / "report" / "report.md").read_text()


def test_a_table_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    params = named("visual_rft")
    work = write_study(tmp_path, params)
    with pytest.raises(StudyError, match=r"report\.published 'visual_rft' .* there are visual_rft_coco8_2b, "):
        report(params, work.grades, work.policies, work.pool, tmp_path / "report")


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_every_preset_names_a_table_its_source_and_what_differs(file):
    params, text = compose([f"+experiment=paper/{file.stem}"]), file.read_text()
    assert params["report"]["published"] in TABLES
    assert "# Provenance: arXiv" in text and "# Differs: " in text
    assert params["model"]["lora"] is None  # both papers train all weights
    other = [word.split("=")[1] for word in text.split() if word.startswith("report.published=")]
    assert set(other) <= set(TABLES)


def test_every_table_is_of_a_metric_of_ours_in_percent():
    metrics = {metric for named in METRICS.values() for metric in named}
    for name, table in TABLES.items():
        assert table["metric"] in metrics, name
        for policy, scores in table["scores"].items():
            assert policy in ("base", "sft", "grpo", "ppo", "offline_st", "online_st"), name
            assert all(1 < score < 100 for score in (scores.values() if isinstance(scores, dict) else [scores])), name
