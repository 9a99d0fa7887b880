"""The written report: its numbers, its self-containment, its escaping, its pictures; and the same bytes twice."""

import base64
import csv
import hashlib
import io
import itertools
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from PIL import Image

from flows.compose import render
from tasks import report as stage
from tasks.reporting import cases, provenance
from tasks.reporting import page as page_of
from tasks.reporting.compare import compare
from tasks.reporting.pictures import MARGIN, draw, gold_layer, sft_layer
from tasks.reporting.selection import select
from tasks.reporting.study import read_study
from tasks.reporting.tables import latex, results
from tasks.reporting.theme import DARK, LIGHT
from tests.reporting.fake_study import SCRIPT, make_params, write_study


class Page(HTMLParser):
    """Tags with their attributes, the text of table cells by row, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self._cell, self._code = [], [], "", False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._code = tag in ("script", "style")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._code = False
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        self.text += "" if self._code else data
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A reported study of two ks and two seeds; read by every test, changed by none."""
    work = write_study(tmp_path_factory.mktemp("study"), make_params())
    stage.report(**vars(work))
    return work


@pytest.fixture(scope="module")
def page(written):
    return Page((written.out / "report.html").read_text(encoding="utf-8"))


def test_the_table_holds_the_means_of_the_rows(written, page):
    for k in (1, 4):
        for policy in ("sft", "grpo"):
            folders = [written.grades / f"{policy}-{k}-{seed}" for seed in (0, 1)]
            rewards = [json.loads(x)["reward"] for f in folders for x in (f / "predictions.jsonl").open()]
            mean = f"{sum(rewards) / len(rewards):.3f}"
            pairs = [pair for row in page.rows for pair in itertools.pairwise(row)]
            assert (policy.upper(), mean) in pairs, (k, policy, mean)
            assert f"| {k} | {policy.upper()} | {mean} |" in (written.out / "report.md").read_text()


def test_metrics_json_agrees_with_the_page(written, page):
    metrics = json.loads((written.out / "metrics.json").read_text())
    for k in ("k=1", "k=4"):
        difference = metrics[k]["grpo-sft"]
        cells = [c for row in page.rows for c in row]
        assert f"{difference['estimate']:+.3f}".replace("-", "\N{MINUS SIGN}") in cells
        assert difference["verdict"] in page.text


def test_dvc_shows_a_table_that_can_be_read(tmp_path):
    """Each number of a metrics file is a column of `dvc metrics show`; it was 298 with three k's and one algorithm."""

    def columns(told):
        return sum(map(columns, told.values())) if isinstance(told, dict) else 1

    work = write_study(tmp_path, make_params(k=(1, 2, 4), seed=(0,), num_pictures=2), num_pictures=12)
    stage.report(**vars(work))
    report = json.loads((work.out / "metrics.json").read_text())
    assert columns(report) == 3 * (3 + 3 + 4)  # rewards, AP, GRPO - SFT
    grades = [json.loads(file.read_text()) for file in work.grades.glob("*/metrics.json")]
    assert columns(report) + len({key for grade in grades for key in grade}) <= 45
    assert not any(isinstance(value, dict) for grade in grades for value in grade.values())
    details = json.loads((work.grades / "grpo-4-0" / "details.json").read_text())
    assert details["ap_by_category"] and sum(details["failures"].values())


def test_the_page_says_what_is_matched(page):
    assert "Matched by data (grid.matched): SFT and RFT learn from the same labelled pictures; each takes" in page.text


def test_the_difference_in_ap_stands_beside_that_in_reward(written, page):
    """On the page and in report.md, as results.csv has it."""
    compared = [row for row in csv.DictReader((written.out / "results.csv").open()) if row["against_sft"]]
    heads = next(row for row in page.rows if "Difference" in row)
    shown = [row for row in page.rows if any(cell.startswith("GRPO \N{MINUS SIGN} SFT") for cell in row)]
    markdown = (written.out / "report.md").read_text().splitlines()
    for row, cells in zip(compared, shown, strict=True):
        ends = [f"{float(row[f'against_sft_ap{end}']):+.3f}" for end in ("", "_low", "_high")]
        estimate, low, high = (end.replace("-", "\N{MINUS SIGN}") for end in ends)
        at = heads.index("AP") - len(heads)
        assert heads[at + 1] == "95% interval" and cells[at:][:2] == [estimate, f"{low} to {high}"]
        (line,) = [line for line in markdown if line.startswith(f"| {row['k']} | GRPO \N{MINUS SIGN} SFT")]
        assert f"| {estimate} | {low} to {high} |" in line


def test_nothing_is_fetched_or_run(written, page):
    """But for one script, whose hash the page's policy names: no other can run, whatever a model says."""
    assert {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "video", "audio", "form"} == set()
    loaded = [a[key] for _, a in page.tags for key in ("src", "href", "srcset", "action", "data") if key in a]
    assert loaded and all(url.startswith(("data:", "#")) for url in loaded)
    source = (written.out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import", source)
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]


@pytest.mark.parametrize(
    ("task", "headings", "shown", "not_shown"),
    [
        ("classification", ["Accuracy", "Lenient accuracy", "Mean over classes"], "the right label", "IoU"),
        ("grounding", ["mIoU", "IoU > 0.5", "gIoU (LISA)", "cIoU"], "overlap with the true boxes", "AP50"),
    ],
)
def test_other_tasks_show_their_own_metrics(tmp_path, task, headings, shown, not_shown):
    params = make_params(k=(4,), seed=(0, 1), num_pictures=4)
    work = write_study(tmp_path, params, num_pictures=16, task=task)
    stage.report(**vars(work))
    page = Page((work.out / "report.html").read_text(encoding="utf-8"))
    scores = page.rows[: 1 + 3]
    assert scores[0][4:-1] == [*headings, f"{headings[0]}, 95% interval"]
    runs = [json.loads((work.grades / f"grpo-4-{seed}" / "metrics.json").read_text()) for seed in (0, 1)]
    found = next(row for row in scores if "GRPO" in row)
    first = {"classification": "accuracy", "grounding": "miou"}[task]
    assert found[3] == f"{sum(run[first] for run in runs) / 2:.3f}"
    differences = next(row for row in page.rows if "Difference" in row)
    assert (headings[0], "95% interval") in itertools.pairwise(differences) and "AP" not in differences
    above = page.text[: page.text.index("params.yaml")]
    assert shown in above and not_shown not in above.replace("an IoU or label", "")
    assert "existence" not in above and "with its confidence" not in above
    if task == "classification":
        assert "Truth: 'class-" in above and "states 'class" in above and "ground truth" not in above
    for text in (work.out / "report.md", work.out / "summary.txt"):
        assert all(heading in text.read_text() for heading in headings)


def test_the_existence_mode_is_named_at_every_table(written):
    assert (written.out / "summary.txt").read_text().count("(grade.existence): ground_truth") == 1
    for file in ("report.html", "report.md"):
        text = (written.out / file).read_text()
        scores = text[text.index("Scores") :]
        assert "Categories asked (grade.existence): ground_truth." in scores[: scores.index("Failures")]
        assert "Categories asked (grade.existence): ground_truth." in scores[scores.index("Failures by kind") :]


def test_a_completion_is_escaped(written, page):
    source = (written.out / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#39;gotcha&#39;)" in source
    assert SCRIPT in page.text
    markdown = (written.out / "report.md").read_text(encoding="utf-8")
    before = markdown[: markdown.index("<script>")].rsplit("\n", 2)
    assert before[-2] == "````text"  # a fence longer than the backticks inside


def test_every_picture_has_a_text_and_opens(page):
    plots = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(plots) == 2 + 2 * 2 + 2 * 8  # over k; training and validation at each k; the cases of each k
    assert all(len(plot["aria-label"]) > 20 for plot in plots)
    pictures = {attributes["id"] for tag, attributes in page.tags if tag == "symbol"}
    assert pictures == {
        attributes["href"][1:] for tag, attributes in page.tags if tag == "use" and "width" in attributes
    }
    for picture in (attributes for tag, attributes in page.tags if tag == "image"):
        Image.open(io.BytesIO(base64.b64decode(picture["href"].partition(",")[2]))).load()


def test_files_named_in_the_markdown_are_there(written):
    files = re.findall(r"\]\((figures/[^)]+)\)", (written.out / "report.md").read_text(encoding="utf-8"))
    assert len(files) == 3 + 8
    papers = {file.replace(".png", ".pdf") for file in files[:3]}
    assert {f"figures/{path.name}" for path in (written.out / "figures").iterdir()} == set(files) | papers


def test_the_results_are_the_page_s_in_a_spreadsheet_and_a_paper(written):
    rows = list(csv.DictReader((written.out / "results.csv").open()))
    metrics = json.loads((written.out / "metrics.json").read_text())
    assert [(row["k"], row["policy"]) for row in rows] == [(k, p) for k in "14" for p in ("base", "sft", "grpo")]
    for row in rows:
        assert float(row["reward"]) == metrics[f"k={row['k']}"][row["policy"]]
        assert float(row["ap_low"]) < float(row["ap"]) < float(row["ap_high"])
    assert float(rows[2]["against_sft_low"]) == metrics["k=1"]["grpo-sft"]["low"] and rows[1]["against_sft"] == ""
    statistics = json.loads((written.out / "statistics.json").read_text())["k=1"]["differences"]["grpo-sft"]
    assert float(rows[2]["against_sft_ap50_low"]) == statistics["beside"]["ap50"]["low"]
    paper = (written.out / "results.tex").read_text()
    assert f"${float(rows[2]['ap']):.3f}$ $[{float(rows[2]['ap_low']):.3f}, " in paper
    assert "\\toprule" in paper and paper.count("\\\\") == 1 + 6
    assert f"${float(rows[2]['reward']):.3f}$ $[" in paper


def test_no_name_breaks_the_table_of_a_paper(written):
    """A bare underscore ends LaTeX with an error, as that of `a_policy` would."""
    study = read_study(written.params.grid, written.grades, written.policies)
    (first, *_) = compare(study, written.params.report)
    scores = tuple(replace(score, policy="a_policy") for score in first.scores)
    differences = tuple(replace(difference, policy="a_policy") for difference in first.differences)
    paper = latex(study, results(study, [replace(first, scores=scores, differences=differences)]))
    assert "A\\_POLICY" in paper and not re.search(r"(?<!\\)[_%#]", paper)


def test_a_swept_study_is_repeated_by_what_composed_it(written, tmp_path, monkeypatch):
    """params.yaml is not committed by a sweep: the commit alone would run another study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(render(written.params.model_dump(), ["+experiment=fsod", "grid.k=[1,2]"]))
    lines = provenance.repeat("python -m tasks.report").splitlines()  # outside git: no checkout
    assert lines[0].startswith("python -m flows.compose +experiment=fsod 'grid.k=[1,2]'   # params.yaml")
    assert lines[1].startswith("dvc repro")


def test_what_rft_cost_holds_its_warm_up(written, page):
    cells = [row for row in page.rows if row[-1].count(",") == 1 and "GRPO" in row]
    told = next(row for row in csv.DictReader((written.out / "results.csv").open()) if row["policy"] == "grpo")
    reward = f"{float(told['reward']):.3f}"
    assert cells[0][:2] == ["GRPO", reward]
    assert (told["gradient_steps"], float(told["flops"]), told["minutes"]) == ("100.0", 91e12, "9.0")
    assert f"| 1 | GRPO | {reward} | 10 | 100 |" in (written.out / "report.md").read_text()
    assert cells[0][-11:-1] == [
        "10",
        "100",
        "45\u00a0k",
        "609\u00a0k",
        "40\u00a0k",
        "700\u00a0k",
        "740\u00a0k",
        "91\u00a0T",
        "9.0",
        "2.5\u00a0GB",
    ]


def test_a_history_that_counts_nothing_has_dashes(tmp_path):
    work = write_study(tmp_path, make_params(k=(4,), seed=(0,), num_pictures=2), num_pictures=4)
    path = work.policies / "warmup-4-0" / "history.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "budget": None}))
    stage.report(**vars(work))
    rows = Page((work.out / "report.html").read_text()).rows
    start = next(i for i, row in enumerate(rows) if "Gradient steps" in row)
    sft, grpo = rows[start + 2 : start + 4]  # below the two lines of headings
    assert (sft[1], sft[4]) == ("SFT", "100")
    assert (grpo[0], grpo[3:10], grpo[11]) == ("GRPO", ["\u2013"] * 7, "\u2013")
    told = next(row for row in csv.DictReader((work.out / "results.csv").open()) if row["policy"] == "grpo")
    assert (told["flops"], told["minutes"]) == ("", "9.0")


def test_validation_is_drawn_for_each_grader_of_a_job(tmp_path):
    work = write_study(tmp_path, make_params(k=(4,), seed=(0,), num_pictures=2), num_pictures=4)
    for path in work.policies.glob("*/history.json"):
        history = json.loads(path.read_text())
        for row in history["val"]:
            row["reward_graders/cost in $x_1$"] = row["reward"] / 2
        path.write_text(json.dumps(history))
    stage.report(**vars(work))
    page = Page((work.out / "report.html").read_text())
    drawn = [a["aria-label"] for _, a in page.tags if "over steps at k = 4" in a.get("aria-label", "")]
    assert [label.split(" over")[0] for label in drawn] == [
        "Training reward",
        "Validation reward",
        "Validation: cost in $x_1$",
    ]
    assert (work.out / "figures" / "curves.pdf").exists()


def test_a_kl_that_nobody_measured_is_said(tmp_path):
    work = write_study(tmp_path, make_params(k=(4,), seed=(0,), num_pictures=2), num_pictures=4)
    assert work.params.rft.beta == 0
    said = "(KL) is not measured: rft.beta is 0."
    stage.report(**vars(work))
    page = (work.out / "report.html").read_text()
    assert said in page[page.index("<h2>Training") : page.index("<h2>Budget")] and "KL to the reference" not in page
    path = work.policies / "grpo-4-0" / "history.json"
    history = json.loads(path.read_text())
    path.write_text(json.dumps(history | {"steps": [row | {"kl": 0.1} for row in history["steps"]]}))
    stage.report(**vars(work))
    page = (work.out / "report.html").read_text()
    assert said not in page and "KL to the reference" in page


def test_several_algorithms_can_each_be_looked_at(tmp_path):
    params = make_params(k=(4,), seed=(0,), num_pictures=8, algorithms=("grpo", "ppo"))
    work = write_study(tmp_path, params, num_pictures=12)
    stage.report(**vars(work))
    page = Page((work.out / "report.html").read_text())
    shown = [a for tag, a in page.tags if tag == "article"]
    study = read_study(params.grid, work.grades, work.policies)
    for algorithm in ("grpo", "ppo"):
        outcomes = {o.name for o in select(study, algorithm, 4, 0, 4) if o.num}
        assert outcomes <= {a[f"data-outcome-{algorithm}"] for a in shown}
    options = {a.get("value") for tag, a in page.tags if tag == "option"}
    assert {"grpo", "ppo", "rft_only"} <= options and "RFT right, SFT wrong" in page.text
    assert "### PPO right, SFT wrong" in (work.out / "report.md").read_text()


def test_several_tasks_have_a_radar(tmp_path):
    work = write_study(tmp_path, make_params(k=(4,), seed=(0,), num_pictures=4), num_pictures=8, task="all")
    stage.report(**vars(work))
    page = Page((work.out / "report.html").read_text())
    radar = next(a for _, a in page.tags if "every metric of every task" in a.get("aria-label", ""))
    assert radar["role"] == "img" and (work.out / "figures" / "radar.pdf").exists()
    assert {"detection", "classification", "grounding"} == {
        json.loads(line)["task"] for line in (work.grades / "base" / "predictions.jsonl").open()
    }


def test_cases_that_are_too_many_bytes_are_left_out_of_every_kind_alike(written):
    study = read_study(written.params.grid, written.grades, written.policies)
    outcomes = [outcome for k in study.ks for outcome in select(study, "grpo", k, 0, 40)]
    drawn = cases.drawn(outcomes)
    views, pictures = cases.views(drawn, written.pool, page_of.case_writer(written.params, study), 60_000)
    assert 40_000 < sum(len(p.uri) for p in pictures) + sum(len(view.html) for view in views) <= 60_000
    assert [view.case for view in views] == drawn[: len(views)] and len(views) < len(drawn)
    assert len({(view.case.k, view.case.outcome("grpo")) for view in views}) >= 6


def test_the_page_stays_under_five_megabytes_however_long_the_answers_are(tmp_path):
    """Of 20,000 characters, of which each takes five bytes where it is escaped; one states a hundred boxes."""
    work = write_study(tmp_path, make_params(k=(1, 4), seed=(0,), num_pictures=60), num_pictures=40)
    for path in work.grades.glob("*/predictions.jsonl"):
        rows = [json.loads(line) for line in path.open()]
        for row in rows:
            row["completion"] = f"<think>{'<answer>' * 500}{chr(39) * 16_000}"
            row |= {"boxes": [[1, 1, 9, 9]] * 100, "confidences": [0.5] * 100} if row["boxes"] else {}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage.report(**vars(work))
    page = (work.out / "report.html").read_text()
    assert 4_000_000 < len(page.encode()) < 5_000_000
    left_out = int(re.search(r"The last (\d+) are left out: the page would be too large", page)[1])
    assert page.count("<article") + left_out == 2 * 60


def test_configuration_is_the_one_of_the_study(written, page):
    shown = page.text[page.text.rindex("params.yaml") + len("params.yaml") :]
    assert yaml.safe_load(shown) == written.params.model_dump()


def test_the_same_bytes_again(written, tmp_path):
    stage.report(written.params, written.grades, written.policies, written.pool, tmp_path)
    for file in (
        "report.md",
        "results.csv",
        "metrics.json",
        "statistics.json",
        *(f"figures/{p.name}" for p in (written.out / "figures").iterdir()),
    ):
        again = (tmp_path / file).read_bytes().replace(bytes(tmp_path), bytes(written.out))
        assert again == (written.out / file).read_bytes(), file


def test_no_curves_and_ks_in_any_order(tmp_path):
    """`sft.steps: 0` leaves no curve; a picture of an earlier, larger report does not stay."""
    work = write_study(tmp_path, make_params(k=(4, 1), seed=(0,), num_pictures=2), num_pictures=4)
    for path in work.policies.glob("*/history.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "steps": [], "val": []}))
    (work.out / "figures").mkdir(parents=True)
    (work.out / "figures" / "both_9.png").write_bytes(b"old")
    assert list(stage.report(**vars(work))) == ["k=1", "k=4"]
    left = {path.name for path in (work.out / "figures").iterdir() if path.suffix == ".png"}
    assert len(left) == 2 + 2 and {"score_over_k.png", "difference_over_k.png"} < left and "both_9.png" not in left


def test_the_command_prints_the_summary(written, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(written.params.model_dump()))
    monkeypatch.chdir(tmp_path)
    paths = {"grades": written.grades, "policies": written.policies, "pool": written.pool, "out": tmp_path / "report"}
    monkeypatch.setattr(sys, "argv", ["report", *(str(x) for name, path in paths.items() for x in (f"--{name}", path))])
    stage.main()
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "report" / "summary.txt").read_text()
    assert printed.startswith("Over 2 values of k, GRPO is")
    assert printed.splitlines()[-1] == str(tmp_path / "report" / "report.html")


def test_equal_boxes_are_all_visible(tmp_path):
    """Solid outside, dashed on the box: both colours are met when walking from the left edge of the box inwards."""
    Image.new("RGB", (112, 112), "white").save(tmp_path / "p.png")
    box = (250.0, 250.0, 750.0, 750.0)
    drawn = Image.open(io.BytesIO(draw(tmp_path / "p.png", (gold_layer((box,)), sft_layer((box,), (0.9,))))))
    assert drawn.size == (4 * 112 + 2 * MARGIN,) * 2
    middle, left = drawn.height // 2, MARGIN + 112
    column = {tuple(drawn.getpixel((x, y)))[:3] for x in range(left - 8, left + 8) for y in range(middle, middle + 30)}
    assert {rgb(LIGHT.gold), rgb(LIGHT.sft)} <= column


def test_a_small_picture_keeps_its_pixels(tmp_path):
    """Nearest-neighbour by a whole factor: no colour that was not there."""
    picture = Image.new("RGB", (4, 2), "black")
    picture.putpixel((1, 1), (250, 10, 10))
    picture.save(tmp_path / "p.png")
    drawn = Image.open(io.BytesIO(draw(tmp_path / "p.png", ())))
    assert drawn.size == (480 + 2 * MARGIN, 240 + 2 * MARGIN)
    assert {c for _, c in drawn.getcolors()} == {(0, 0, 0, 0), (0, 0, 0, 255), (250, 10, 10, 255)}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_colours_reach_wcag_aa(theme):
    for colour in (theme.ink, theme.muted, theme.base, theme.sft, *theme.rft, theme.gold):
        light, dark = sorted((luminance(colour), luminance(theme.paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def luminance(colour):
    """Relative luminance, WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
