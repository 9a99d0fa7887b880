"""Several finished reports on one page: their numbers, their verdicts as they were given, and bad folders by name."""

import re
import sys
from pathlib import Path

import pytest

from tasks import overview as program
from tasks.overview import OverviewError, headline, overview, read_finished
from tests.reporting.test_report import Page

HEAD = "k,policy,num_seeds,reward,reward_low,reward_high"
TAIL = "against_sft,against_sft_low,against_sft_high,verdict,p_holm,detectable,superiority"
OWN = {"detection": "iou,ap,ap50", "grounding": "miou,iou50,giou_lisa,ciou", "maths": "accuracy"}
OWN |= {"classification": "accuracy,accuracy_lenient,accuracy_per_class"}


def write(folder: Path, task: str, verdicts: dict[int, str], name: str | None = None, matched: str = "") -> Path:
    """A report of a study at the ks of `verdicts`; rewards 0.5, 0.6, 0.7 of base, SFT and GRPO."""
    own = ",".join(["0.25"] * len(OWN[task].split(",")))
    lines = []
    for k, verdict in verdicts.items():
        against = {"base": ",,,,,,", "sft": ",,,,,,", "grpo": f"0.1,0.05,0.15,{verdict},0.0123,0.04,0.6"}
        for policy, reward in {"base": 0.5, "sft": 0.6, "grpo": 0.7}.items():
            line = f"{k},{policy},3,{reward},{reward - 0.1},{reward + 0.1},{own},{against[policy]}"
            lines.append(f"{matched},{line}" if matched else line)
    folder.mkdir()
    head = f"{HEAD},{OWN[task]},{TAIL}"
    (folder / "results.csv").write_text("\n".join([f"matched,{head}" if matched else head, *lines]) + "\n")
    if name:
        (folder / "report.md").write_text(f"# Study {name}: does reinforcement fine-tuning beat ... here?\n")
        (folder / "report.html").write_text("its page")
    return folder


@pytest.fixture
def reports(tmp_path) -> list[Path]:
    return [
        write(tmp_path / "a", "detection", {1: "better", 4: "too little data"}, r"few\_shot"),
        write(tmp_path / "b", "classification", {4: "worse"}, "fgvc", matched="flops"),
        write(tmp_path / "c", "grounding", {16: "better"}),
    ]


def test_the_page_and_the_markdown_hold_each_row_and_each_verdict(reports, tmp_path):
    out = tmp_path / "docs" / "overview"
    overview(reports, out)
    page = Page((out / "overview.html").read_text())
    text = " ".join(page.text.split())
    assert (
        "Of 4 comparisons, GRPO is better than SFT in 2, worse than SFT in 1, undecided for want of data in 1." in text
    )
    assert "Every verdict is its study's own" in text
    rows = [[cell.strip() for cell in row] for row in page.rows]
    grpo = [row for row in rows if "GRPO" in row and "0.700" in row]
    assert len(grpo) == 4 and grpo[0][-4:] == [
        "+0.100",
        "+0.050 to +0.150",
        "0.012",
        "\N{BLACK UP-POINTING TRIANGLE} better",
    ]
    assert [row[-1].split(" ", 1)[1] for row in grpo] == ["better", "too little data", "worse", "better"]
    assert "few_shot" in text and "matched by flops" in text and text.count("matched by") == 1
    assert ["mIoU", "0.250", "0.250", "0.250"] in [row[-4:] for row in rows]
    markdown = (out / "overview.md").read_text()
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 * 3 and {line.count("|") for line in table} == {11}
    assert r"| [few\_shot](../../a/report.html) | detection | 1 | GRPO | 3 | 0.700 |" in markdown
    assert "| c | grounding | 16 |" in markdown  # no page of its own: no link, and the folder's name
    for file in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (out / file).is_file() and (out / file).with_suffix(".pdf").is_file()


def test_nothing_is_fetched_and_nothing_runs(reports, tmp_path):
    overview(reports, tmp_path / "out")
    page = Page((tmp_path / "out" / "overview.html").read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "img", "object", "embed", "form"}
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["../a/report.html", "../b/report.html"]


def test_two_studies_have_no_radar(reports, tmp_path):
    overview(reports[:2], tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {"differences"}
    assert "radar" not in (tmp_path / "out" / "overview.md").read_text()


@pytest.mark.parametrize("task", ["detection", "classification", "grounding", "maths"])
def test_a_task_is_known_by_its_metrics(tmp_path, task):
    assert read_finished(write(tmp_path / "r", task, {1: "better"})).tasks == (task,)


@pytest.mark.parametrize(
    ("matched", "names"),
    [(("data", "flops"), ["fsod (matched by data)", "fsod (matched by flops)"]), (("", ""), ["fsod (1)", "fsod (2)"])],
)
def test_studies_of_one_name_are_told_apart(tmp_path, matched, names):
    folders = [
        write(tmp_path / f"{i}", "detection", {1: "worse"}, "fsod", matched=mode) for i, mode in enumerate(matched)
    ]
    overview(folders, tmp_path / "out")
    text = Page((tmp_path / "out" / "overview.html").read_text()).text
    assert all(name in text for name in names)


def test_a_headline_counts_one_algorithm(reports):
    studies = [read_finished(folder) for folder in reports[1:2]]
    assert headline(studies, "grpo") == "Of 1 comparison, GRPO is worse than SFT in 1."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"results\.csv is missing: give folders that `python -m tasks\.report` wrote"),
        ("", r"results\.csv is no table"),
        ("k,policy\n1,sft\n", r"results\.csv has no against_sft, .*reward_low.*: make the report again"),
    ],
)
def test_a_folder_without_a_report_is_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "results.csv").write_text(content)
    with pytest.raises(OverviewError, match=said):
        read_finished(tmp_path)


def test_the_command_names_the_page_or_what_is_wrong(reports, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["overview", str(reports[2]), "--out", str(tmp_path / "out")])
    program.main()
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'overview.html'}\n"
    monkeypatch.setattr(sys, "argv", ["overview", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert "none/results.csv is missing" in capsys.readouterr().err
