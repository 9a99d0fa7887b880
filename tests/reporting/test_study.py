"""What is read from the folders of a study, and how a missing or unusable file is named."""

import json

import pytest

from tasks.reporting.compare import compare
from tasks.reporting.study import StudyError, read_study
from tasks.reporting.tables import latex, results
from tasks.reporting.words import summary
from tests.reporting.fake_study import SCRIPT, make_params, write_study


def read(workplace):
    return read_study(workplace.params.grid, workplace.grades, workplace.policies)


def test_every_point_of_the_grid_and_the_base(workplace):
    study = read(workplace)
    assert {(g.policy, g.k, g.seed) for g in study.graded} == {
        (policy, k, seed) for policy in ("sft", "grpo") for k in (1, 4) for seed in (0, 1)
    }
    assert study.grades("base", 4) == (study.base,)
    assert [(h.k, h.seed) for h in study.trainings("warmup", 4)] == [(4, 0), (4, 1)]
    assert any(a.completion == SCRIPT for a in study.base.answers)


def test_folders_outside_the_grid_are_not_read(workplace):
    (workplace.grades / "grpo-8-0").mkdir()
    (workplace.grades / "grpo-8-0" / "predictions.jsonl").write_text("not even JSON")
    assert {g.k for g in read(workplace).graded} == {1, 4}


@pytest.mark.parametrize(
    "missing",
    [
        "grades/base/metrics.json",
        "grades/grpo-4-1/predictions.jsonl",
        "policies/sft-1-0/history.json",
        "policies/warmup-4-0/history.json",
    ],
)
def test_a_missing_file_is_named(workplace, missing):
    path = workplace.pool.parent / missing
    path.unlink()
    with pytest.raises(StudyError, match="is missing") as error:
        read(workplace)
    assert str(path) in str(error.value)


def test_a_truncated_file_is_named(workplace):
    path = workplace.grades / "sft-1-1" / "predictions.jsonl"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(StudyError, match=str(path)):
        read(workplace)


def test_answers_to_other_questions_are_refused(workplace):
    path = workplace.grades / "sft-1-1" / "predictions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(StudyError, match="does not answer the questions"):
        read(workplace)


def test_answers_are_put_in_the_order_of_the_base(workplace):
    path = workplace.grades / "grpo-1-0" / "predictions.jsonl"
    before = read(workplace)
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert read(workplace) == before


def test_two_instructions_of_the_same_words_are_two_questions(tmp_path):
    work = write_study(tmp_path, make_params(k=(4,), seed=(0,)), num_pictures=4, task="grounding")
    for path in work.grades.glob("*/predictions.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        twin = lines[0] | {"gold": [[1, 2, 3, 4]], "completion": f"the other one, {path.parent.name}"}
        path.write_text("".join(json.dumps(row) + "\n" for row in [*lines, twin]))
    study = read(work)
    for graded in (study.base, *study.graded):
        assert [a.gold for a in graded.answers] == [a.gold for a in study.base.answers]
        assert graded.answers[0].asked == graded.answers[-1].asked
        assert graded.answers[-1].completion.startswith("the other one") > graded.answers[0].completion.startswith(
            "the"
        )


def test_a_curve_without_rewards_is_empty(workplace):
    study = read(workplace)
    assert study.trainings("sft", 1)[0].curve("steps").empty
    written = json.loads((workplace.policies / "grpo-1-0" / "history.json").read_text())["val"]
    assert study.trainings("grpo", 1)[0].curve("val").to_dict() == {row["step"]: row["reward"] for row in written}


def reranked_study(tmp_path):
    """Problems in words; a reward model chose among the samples of GRPO alone."""
    params = make_params(k=(4,), seed=(0, 1))
    grade, grid = {"samples": 2}, {"rerank": ["grpo"]}
    changed = {"grade": params.grade.model_copy(update=grade), "grid": params.grid.model_copy(update=grid)}
    return write_study(tmp_path, params.model_copy(update=changed), num_pictures=6, task="maths")


def test_a_reranked_policy_shows_its_share_and_the_others_a_dash(tmp_path):
    work = reranked_study(tmp_path)
    study = read(work)
    assert study.headings["rerank"] == "Reranked"
    (comparison,) = compare(study, work.params.report)
    assert comparison.score("grpo").metrics["rerank"] == 0.75
    told = {line.split()[1]: line for line in summary([], (comparison,), 0.95, study).splitlines() if line[:1] == "4"}
    assert "\N{EN DASH}" in told["Base"] and "\N{EN DASH}" in told["SFT"]
    assert "0.750" in told["GRPO"] and "\N{EN DASH}" not in told["GRPO"]
    assert "nan" not in latex(study, results(study, (comparison,)))


def test_a_rerank_that_the_grid_names_and_is_not_there_is_named(tmp_path):
    work = reranked_study(tmp_path)
    (work.grades / "grpo-4-1" / "rerank.json").unlink()
    with pytest.raises(StudyError, match=r"grpo-4-1/rerank\.json is missing"):
        read(work)
