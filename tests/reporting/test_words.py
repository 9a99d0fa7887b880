"""The numbers compared and the sentences made of them."""

import csv
import json
from dataclasses import replace

import pytest

from tasks.report import report
from tasks.reporting.compare import Comparison, Difference, Score, as_metrics, as_statistics, compare
from tasks.reporting.study import read_study
from tasks.reporting.tables import results
from tasks.reporting.words import about_the_score, headline, opposed, signed, summary, unfinished
from tasks.scoring.statistics import Interval, holm
from tests.reporting.fake_study import make_params, write_study


def rows(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.fixture
def study(workplace):
    return read_study(workplace.params.grid, workplace.grades, workplace.policies)


def difference(low, high, **changed):
    """GRPO against SFT with this interval, of two seeds unless told otherwise."""
    word = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    found = Difference(
        policy="grpo",
        other="sft",
        interval=Interval((low + high) / 2, low, high),
        verdict=word,
        p=0.03,
        p_holm=0.06,
        num_tests=2,
        by_seed={0: low, 1: high},
        kept=0,
        seed_share=0.8,
        detectable=0.0841,
        superiority=0.55,
        beside={"ap": Interval(0.01, -0.01, 0.03)},
    )
    return replace(found, **changed)


def comparison(k, low, high, **changed):
    scores = (
        Score("base", 1, Interval(0.6, 0.55, 0.65), {"iou": 0.5, "ap": 0.4, "ap50": 0.6}, {}),
        Score("sft", 2, Interval(0.701, 0.65, 0.75), {"iou": 0.6, "ap": 0.5, "ap50": 0.7}, {}),
        Score("grpo", 2, Interval(0.742, 0.7, 0.78), {"iou": 0.7, "ap": 0.6, "ap50": 0.8}, {}),
    )
    return Comparison(k, scores, (difference(low, high, **changed),))


def test_scores_are_the_means_of_the_rows(workplace, study):
    for found in compare(study, workplace.params.report):
        for policy in ("sft", "grpo"):
            runs = [rows(workplace.grades / f"{policy}-{found.k}-{seed}") for seed in (0, 1)]
            score = found.score(policy)
            assert score.reward.estimate == pytest.approx(mean(r["reward"] for run in runs for r in run))
            assert score.metrics["iou"] == pytest.approx(mean(r["sub_rewards"]["iou"] for run in runs for r in run))
            assert score.reward.low < score.reward.estimate < score.reward.high
            written = [workplace.grades / f"{policy}-{found.k}-{seed}" / "metrics.json" for seed in (0, 1)]
            assert score.metrics["ap"] == pytest.approx(mean(json.loads(path.read_text())["ap"] for path in written))
        base = mean(r["reward"] for r in rows(workplace.grades / "base"))
        assert found.difference("sft", "base").interval.estimate == pytest.approx(
            found.score("sft").reward.estimate - base
        )
        assert found.difference("grpo", "sft").interval.estimate == pytest.approx(
            found.score("grpo").reward.estimate - found.score("sft").reward.estimate
        )


def test_an_interval_of_a_score_stays_within_its_scale(study, workplace):
    """Of two seeds' answers 90% and 95% are right: t goes beyond 1. A job's graders have a scale of their own."""

    def answered(graded, **changed):
        right = {("grpo", 0): 10, ("grpo", 1): 20}.get((graded.policy, graded.seed), 1)
        answers = [replace(a, reward=float(n % right != 0), **changed) for n, a in enumerate(graded.answers)]
        return replace(graded, answers=tuple(answers))

    for changed in ({}, {"task": "job", "own": {}}):
        base, *graded = (answered(g, **changed) for g in (study.base, *study.graded))
        found = compare(replace(study, base=base, graded=tuple(graded)), workplace.params.report)[0]
        score, difference = found.score("grpo").reward, found.difference("grpo", "sft").interval
        assert (score.high > 1) is bool(changed) and score.low < score.estimate < 1
        assert difference.high > 1 and difference.estimate == score.estimate


def test_metrics_are_nested_by_k(workplace, study):
    comparisons = compare(study, workplace.params.report)
    metrics, statistics = as_metrics(study, comparisons), as_statistics(comparisons)
    assert list(metrics) == list(statistics) == ["k=1", "k=4"]
    assert metrics["k=4"]["grpo"] == comparisons[1].score("grpo").reward.estimate
    found = comparisons[1].difference("grpo", "sft")
    assert metrics["k=4"]["grpo-sft"] == vars(found.interval) | {"verdict": found.verdict}
    sft = comparisons[1].score("sft")
    assert metrics["k=4"]["ap"]["sft"] == sft.beside["ap"].estimate
    assert statistics["k=4"]["differences"]["grpo-sft"]["p_holm"] == found.p_holm
    assert statistics["k=4"]["scores"]["sft"]["beside"]["ap75"]["high"] == sft.beside["ap75"].high
    assert json.loads(json.dumps(statistics))["k=4"]["differences"]["grpo-sft"]["by_seed"].keys() == {"0", "1"}


def test_the_statistics_beside_a_difference(workplace, study):
    """From the rows: each seed's sign, superiority; AP differences from the metrics files; Holm over the two k's."""
    comparisons = compare(study, workplace.params.report)
    for found in comparisons:
        pairs = {
            seed: [rows(workplace.grades / f"{policy}-{found.k}-{seed}") for policy in ("grpo", "sft")]
            for seed in (0, 1)
        }
        difference = found.difference("grpo", "sft")
        for seed, (a, b) in pairs.items():
            expected = mean(x["reward"] for x in a) - mean(x["reward"] for x in b)
            assert difference.by_seed[seed] == pytest.approx(expected)
        both = [(x["reward"], y["reward"]) for a, b in pairs.values() for x, y in zip(a, b, strict=True)]
        assert difference.superiority == pytest.approx(mean((x > y) + 0.5 * (x == y) for x, y in both))
        for name in ("ap", "ap50", "ap75"):
            aps = {p: found.score(p).beside[name].estimate for p in ("sft", "grpo")}
            assert difference.beside[name].estimate == pytest.approx(aps["grpo"] - aps["sft"])
            if name in study.headings:
                assert aps["sft"] == pytest.approx(found.score("sft").metrics[name], abs=1e-9)
        assert difference.detectable > abs(difference.interval.high - difference.interval.low) / 2
        assert difference.verdict == "too little data"  # two seeds
    ps = sorted((c.difference("grpo", "sft") for c in comparisons), key=lambda d: d.p)
    assert ps[0].p_holm == pytest.approx(min(1, 2 * ps[0].p)) and ps[1].p_holm >= ps[1].p


def test_all_comparisons_with_sft_are_one_family(tmp_path):
    """Two algorithms at two k's are four chances of a false finding."""
    params = make_params(k=(1, 4), seed=(0, 1, 2), algorithms=("grpo", "ppo"))
    work = write_study(tmp_path, params)
    study = read_study(params.grid, work.grades, work.policies)
    found = compare(study, params.report)
    with_sft = [c.difference(a, "sft") for a in ("grpo", "ppo") for c in found]
    assert [d.p_holm for d in with_sft] == holm([d.p for d in with_sft])
    with_base = [c.difference("ppo", "base") for c in found]
    assert [d.p_holm for d in with_base] == holm([d.p for d in with_base])
    assert {d.num_tests for d in with_sft} == {4} and {d.num_tests for d in with_base} == {2}
    alone = compare(replace(study, grid=make_params(k=(1, 4), seed=(0, 1, 2)).grid), params.report)
    assert found[0].difference("grpo", "sft").detectable > alone[0].difference("grpo", "sft").detectable
    assert [(d.policy, d.other) for d in found[0].differences][:3] == [("grpo", "sft"), ("ppo", "sft"), ("sft", "base")]
    assert "Holm's correction over the k's and algorithms." in about_the_score(params, study)[-1]


def test_a_policy_that_was_best_at_its_last_step_may_not_be_done(study):
    def kept(best: dict) -> str:
        places = {policy: iter(wanted) for policy, wanted in best.items()}
        told = [replace(h, best_step=h.val[-1]["step"] * next(places[h.policy])) for h in study.histories]
        return unfinished(replace(study, histories=tuple(told)))

    num = sum(h.policy == "sft" for h in study.histories)
    never, always, half = [False] * num, [True] * num, [n < num / 2 for n in range(num)]
    assert kept({"warmup": always, "sft": never, "grpo": never}) == ""
    said = "Best on val at the last step, so that more may help: "
    assert kept({"warmup": never, "sft": always, "grpo": never}) == f"{said}SFT in {num} of {num} (raise sft.steps)."
    assert f"GRPO in {sum(half)} of {num} (raise rft.steps)" in kept({"warmup": never, "sft": never, "grpo": half})


@pytest.mark.parametrize(
    ("task", "metric", "right"),
    [
        ("classification", "accuracy", lambda row: row["sub_rewards"]["label"]),
        ("grounding", "miou", lambda row: row["sub_rewards"]["iou"]),
        ("maths", "accuracy", lambda row: row["sub_rewards"]["answer"] == 1),
        ("maths", "vote", lambda row: row["vote_right"]),
        ("ranking", "top1", lambda row: row["rank"] == 1),
        ("ranking", "top5", lambda row: row["rank"] is not None and row["rank"] <= 5),
        ("ranking", "top_max", lambda row: row["rank"] is not None),
    ],
)
def test_the_metric_of_a_task_has_an_interval_and_a_paired_difference(tmp_path, task, metric, right):
    params = make_params(k=(4,), seed=(0, 1, 2))
    params = params.model_copy(update={"grade": params.grade.model_copy(update={"samples": 2})})
    work = write_study(tmp_path, params, task=task)
    study = read_study(params.grid, work.grades, work.policies)
    (found,) = compare(study, params.report)
    assert metric in study.own
    means = {p: [mean(map(right, rows(work.grades / f"{p}-4-{s}"))) for s in (0, 1, 2)] for p in ("sft", "grpo")}
    for policy, by_seed in means.items():
        own = found.score(policy).beside[metric]
        assert own.low < own.estimate < own.high and own.estimate == pytest.approx(mean(by_seed))
        assert found.score(policy).metrics[metric] == pytest.approx(own.estimate)
    difference = found.difference("grpo", "sft").beside[metric]
    assert difference.low < difference.high
    assert difference.estimate == pytest.approx(mean(means["grpo"]) - mean(means["sft"]))
    row = results(study, (found,)).set_index("policy").loc["grpo"]
    assert (row[f"{metric}_low"], row[f"against_sft_{metric}_high"]) == (
        found.score("grpo").beside[metric].low,
        difference.high,
    )


def test_a_metric_that_goes_against_the_reward_is_said(study):
    """Of the study in docs/results.md: at k = 16 the reward is higher and AP lower, both clear of zero."""
    lower, higher = {"ap": Interval(-0.016, -0.025, -0.007)}, {"ap": Interval(0.016, 0.007, 0.025)}
    some = [comparison(k, 0.01, 0.04, beside=beside) for k, beside in ((8, higher), (16, lower))]
    assert opposed(study, some) == ["GRPO's AP is lower than SFT's at k = 16: -0.016, -0.025 to -0.007."]
    assert opposed(study, some)[0] in summary(["The verdict."], some, 0.95, study).splitlines()
    (said,) = opposed(study, [comparison(1, -0.04, -0.01, beside=higher)])
    assert said.startswith("GRPO's AP is higher than SFT's at k = 1:")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, "a true difference below 0.084 can go unnoticed: take more seeds"),
        ({"seed_share": 0.2}, "a true difference below 0.084 can go unnoticed: take more test questions"),
        ({"by_seed": {0: 0.0}}, "1 seed cannot speak for other runs: take 3"),
        ({"by_seed": {0: 0.0, 1: 0.1}}, "2 seeds cannot speak for other runs: take 3"),
        ({"verdict": "no difference shown"}, ""),
        ({"verdict": "no difference shown", "kept": 1}, "1 of 3 runs kept SFT's own weights"),
        (
            {"kept": 2},
            "2 of 3 runs kept SFT's own weights; a true difference below 0.084 can go unnoticed: take more seeds",
        ),
        (
            {"by_seed": {0: 0.0}, "kept": 1},
            "this run kept SFT's own weights; 1 seed cannot speak for other runs: take 3",
        ),
    ],
)
def test_too_little_data_says_what_lacks(changed, why):
    three = {"verdict": "too little data", "by_seed": {0: 0.0, 1: 0.1, 2: 0.2}}
    assert difference(-0.01, 0.05, **(three | changed)).why == why


def test_an_interval_that_the_verdict_does_not_follow_is_explained(study):
    """The interval is of one k, the verdict of all: Holm's correction can lie between the two."""
    seeds = {"verdict": "no difference shown", "by_seed": {0: 0.03, 1: 0.02, 2: 0.02}}
    found = comparison(4, 0.01, 0.04, **seeds, p=0.01, p_holm=0.052)
    why = "alone it would be better, but by Holm's correction over 2 comparisons p is 0.052, not 0.010: take more seeds"
    assert found.differences[0].why == why
    assert difference(0.01, 0.04, **(seeds | {"verdict": "better"}), p=0.01, p_holm=0.02).why == ""
    assert difference(-0.01, 0.04, **seeds, p=0.2, p_holm=0.4).why == ""
    said = summary(["The verdict."], [found, comparison(8, -0.01, 0.04, **seeds)], 0.95, study)
    assert f"k = 4, GRPO - SFT: {why}." in said.splitlines() and "k = 8, GRPO - SFT" not in said


def test_runs_that_kept_the_weights_of_sft_claim_no_power(tmp_path):
    """They answer alike, so that nothing varies: the study would not find 0.000, it has not tried."""
    params = make_params(k=(4,), seed=(0, 1, 2), num_pictures=2)
    params = make_params(k=(4,), seed=(0, 1, 2), num_pictures=2, warmup=params.sft.model_dump())
    assert params.grid.init == "sft"
    work = write_study(tmp_path, params)
    for seed in (0, 1, 2):
        answers = (work.grades / f"sft-4-{seed}" / "predictions.jsonl").read_text()
        (work.grades / f"grpo-4-{seed}" / "predictions.jsonl").write_text(answers)
        history = work.policies / f"grpo-4-{seed}" / "history.json"
        history.write_text(json.dumps({**json.loads(history.read_text()), "best_step": 0}))
    report(**vars(work))
    why = "3 of 3 runs kept SFT's own weights; every answer earns what SFT's does, so that nothing tells what "
    said = (work.out / "summary.txt").read_text().splitlines()[0]
    assert said.endswith(f"3 seeds): too little data ({why}difference would be found).")
    page = (work.out / "report.html").read_text()
    row = page[page.index("GRPO \N{MINUS SIGN} SFT</td>") :]
    assert "<td>0 0 0</td><td>\N{EN DASH}</td>" in row[: row.index("</tr>")] and "3 of 3 runs kept SFT" in page
    (told,) = [row for row in csv.DictReader((work.out / "results.csv").open()) if row["policy"] == "grpo"]
    assert (told["verdict"], told["detectable"]) == ("too little data", "")


def test_one_seed_says_what_this_run_shows(study):
    changed = {"verdict": "too little data", "by_seed": {0: 0.03}}
    ways = {(0.01, 0.05): "better", (-0.05, -0.01): "worse"}
    for (low, high), word in ways.items():
        why = f"this run is {word} on such questions, but 1 seed cannot speak for other runs: take 3"
        assert difference(low, high, **changed).why == why
    study = replace(study, grid=make_params(k=(4,), seed=(0,)).grid)
    text = headline(study, [comparison(4, 0.01, 0.05, **changed)], "grpo", 0.95)
    assert text.endswith(
        "1 seed): too little data (this run is better on such questions, but 1 seed cannot speak for other "
        "runs: take 3)."
    )


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.012, 0.070, "better"), (-0.02, 0.05, "no difference shown"), (-0.09, -0.01, "worse")],
)
def test_one_k_says_how_much_and_how_sure(study, low, high, word):
    study = replace(study, grid=make_params(k=(4,)).grid)
    text = headline(study, [comparison(4, low, high)], "grpo", 0.95)
    middle = signed((low + high) / 2)
    assert text == (
        f"At k = 4, GRPO scores 0.742 against SFT's 0.701: {middle} "
        f"(95% interval {signed(low)} to {signed(high)}, 24 pictures, 2 seeds): {word}."
    )


def test_several_ks_are_counted_and_the_largest_is_told(study):
    some = [comparison(1, 0.01, 0.05), comparison(2, 0.02, 0.06), comparison(4, -0.2, -0.1), comparison(8, -0.02, 0.04)]
    text = headline(study, some, "grpo", 0.9)
    assert text.startswith(
        "Over 4 values of k, GRPO is better than SFT at 2 (k = 1, 2), worse than SFT at 1 (k = 4), "
        "not shown to differ from SFT at 1 (k = 8); at k = 8, GRPO scores"
    )
    assert "(90% interval -0.020 to +0.040" in text and text.endswith("no difference shown.")


def test_one_seed_is_said_to_cover_pictures_only(tmp_path):
    for seeds, said in (((0,), "pictures only and say nothing about another training"), ((0, 1), "2 training seeds")):
        params = make_params(k=(4,), seed=seeds)
        work = write_study(tmp_path / str(len(seeds)), params, num_pictures=4)
        study = read_study(params.grid, work.grades, work.policies)
        about = about_the_score(params, study)[2]
        assert said in about and "Student's t times the standard error" in about and "resamples" not in about
        square = "covariance of two seeds" if len(seeds) > 1 else "variance"
        assert f"whose square is the {square} over 400 bootstrap draws of the test pictures" in about


def test_the_score_is_described_by_its_weights(workplace, study):
    weights = {"iou": 2.0, "confidence": 0.0, "format": 2.0, "iou_threshold": 0.5}
    params = make_params(reward={"detection": weights})
    assert "50% overlap with the true boxes (IoU) + 50% format;" in about_the_score(params, study)[0]


def test_a_rounded_zero_has_no_minus():
    assert (signed(-0.0002), signed(-0.002), signed(0.04)) == ("+0.000", "-0.002", "+0.040")


def test_summary_is_aligned_and_names_the_existence_mode(study):
    lines = summary(["The verdict."], [comparison(4, 0.012, 0.07)], 0.95, study).splitlines()
    assert lines[:2] == ["The verdict.", ""]
    header, base, _, grpo, _, mode, matched, more = lines[2:]
    assert more == unfinished(study) != ""
    assert mode == "Categories asked (grade.existence): ground_truth."
    assert matched.startswith("Matched by data (grid.matched): SFT and RFT learn from the same labelled pictures")
    assert header.index("AP50") == base.rindex("0.600") == grpo.index("0.800")
    assert grpo.endswith("+0.012 to +0.070  better")
