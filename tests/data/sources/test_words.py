"""GSM8K, SVAMP, MathQA, ReFT's files and our own problems: what is read, and what is put aside with its line."""

import json
from pathlib import Path

import pytest

from tasks.data.records import DataError, Problem
from tasks.schema.dataset import Gsm8kFiles, MathqaFiles, ProblemsFiles, ReftFiles, SvampFiles

GSM8K = Path("/work/shared/data/gsm8k")


@pytest.fixture
def write(tmp_path):
    def write(value, name="rows.json"):
        path = tmp_path / name
        if isinstance(value, list) and name.endswith(".jsonl"):
            value = "".join(json.dumps(row) + "\n" for row in value)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


def problems(split) -> list[Problem]:
    return [p.record.problem for p in split.pictures]


CLIPS = {
    "question": "She sold 48 clips, then half as many. How many?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips.\nShe sold 48+24 = <<48+24=72>>72 clips.\n#### 1,072",
}


def test_gsm8k_loses_its_calculator_marks_and_keeps_its_answer(write, read):
    split = read("gsm8k", Gsm8kFiles(rows=write([CLIPS], "rows.jsonl")))
    chain = "She sold 48/2 = 24 clips.\nShe sold 48+24 = 72 clips."
    assert problems(split) == [Problem("maths", CLIPS["question"], "1,072", (chain,))]
    assert split.read == {"problem": 1, "annotation": 0}


@pytest.mark.skipif(not GSM8K.is_dir(), reason="no GSM8K here")
def test_all_of_gsm8k_is_used(read):
    splits = [read("gsm8k", Gsm8kFiles(rows=str(GSM8K / f"{name}.jsonl"))) for name in ("train", "test")]
    assert [(len(s.pictures), len(s.aside)) for s in splits] == [(7473, 0), (1319, 0)]
    assert not any("<<" in chain for s in splits for p in problems(s) for chain in p.chains)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"question": "a?", "answer": "#### 7"', "not JSON"),
        ('{"question": "a?", "question": "b?", "answer": "#### 7"}', "not JSON"),
        ('{"question": "a?"}', "no key"),
        ('{"question": "a?", "answer": "7"}', "no '####' before the answer"),
        ('{"question": "a?", "answer": 7}', "no '####' before the answer"),
        ('{"question": "a?", "answer": "#### "}', "answer is neither text nor a number"),
        ('{"question": "a?", "answer": "#### seven"}', "answer is neither one number nor a letter"),
        ('{"question": "a?", "answer": "#### 1e999"}', "answer is neither one number nor a letter"),
        ('{"question": "", "answer": "#### 7"}', "question is not text"),
        ('{"question": 7, "answer": "#### 7"}', "question is not text"),
        ('{"question": "\\ud800", "answer": "#### 7"}', "question is not valid Unicode"),
        ('{"question": "a?", "answer": "so </think> #### 7"}', "chain holds the tag </think>"),
        (json.dumps(CLIPS | {"question": CLIPS["question"].upper()}), "same words as another problem of this split"),
        ("[]", "not a JSON object"),
    ],
)  # fmt: skip
def test_a_bad_line_is_put_aside_with_its_number_and_the_good_one_is_used(write, read, line, fault):
    split = read("gsm8k", Gsm8kFiles(rows=write(f"{json.dumps(CLIPS)}\n\n{line}\n", "rows.jsonl")))
    assert len(split.pictures) == 1
    assert [(q.kind, q.line, q.fault) for q in split.aside] == [("problem", 3, fault)]
    assert split.read["problem"] == 2


def test_our_own_rows_may_serve_every_task_in_words(write, read):
    rows = [
        {"question": "How many?", "answer": 7.0, "chains": ["3 + 4 = 7", "8 - 1 = 7"], "category": "sums"},
        {"question": "Which? a ) 1 , b ) 2", "answer": "b"},
        {"question": "Compute it.", "answer": "7", "task": "program", "chains": ["def solution():\n    return 7"]},
        {"question": "Which gene?", "answer": ["ARX", "BDN"], "task": "ranking"},
        {"question": "Which gene is it?", "answer": "ARX", "task": "ranking"},
    ]
    split = read("problems", ProblemsFiles(rows=write(rows, "rows.jsonl")))
    assert [(p.task, p.answer, len(p.chains), p.category) for p in problems(split)] == [
        ("maths", "7", 2, "sums"),
        ("maths", "b", 0, None),
        ("program", "7", 1, None),
        ("ranking", "ARX", 0, None),
        ("ranking", "ARX", 0, None),
    ]
    assert [p.others for p in problems(split)] == [(), (), (), ("BDN",), ()]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"chain": ["x"]}, "unknown key"),
        ({"chains": "x"}, "chains is not a list"),
        ({"chains": [7]}, "chain is not text"),
        ({"task": "essay"}, "task is none of maths, program, ranking"),
        ({"answer": True}, "answer is neither text nor a number"),
        ({"answer": float("nan")}, "answer is neither one number nor a letter"),
        ({"answer": []}, "answer is neither text nor a number"),
        ({"answer": ", ;", "task": "ranking"}, "answer names nothing"),
        ({"answer": ["ARX", 7.5, None], "task": "ranking"}, "answer is neither text nor a number"),
        ({"category": 7}, "category is not text"),
    ],
)
def test_a_bad_row_of_ours_is_put_aside(write, read, changed, fault):
    split = read("problems", ProblemsFiles(rows=write([{"question": "a?", "answer": 7} | changed], "rows.jsonl")))
    assert (len(split.pictures), [(q.line, q.fault) for q in split.aside]) == (0, [(1, fault)])


SVAMP = {
    "ID": "chal-1", "Body": "Each pack of dvds costs 76 dollars. There is a discount of 25 dollars on each pack",
    "Question": "How much do you have to pay?", "Equation": "( 76.0 - 25.0 )", "Answer": 51.0, "Type": "Subtraction",
}  # fmt: skip


def test_svamp_as_chains_and_as_programs(write, read):
    rows = [SVAMP, SVAMP | {"Question": "And twice?", "Equation": "( ( 76.0 - 25.5 ) * 2.0 )", "Answer": 101.0}]
    bad = [SVAMP | {"Question": "b", "Equation": "__import__('os')"}, SVAMP | {"Question": "c", "Answer": None}, 7]
    for task, chains in (
        ("maths", ["76 - 25 = 51", "( ( 76 - 25.5 ) * 2 ) = 101"]),
        ("program", [f"def solution():\n    return {e}" for e in ("76 - 25", "( ( 76 - 25.5 ) * 2 )")]),
    ):
        split = read("svamp", SvampFiles(rows=write(rows + bad), task=task))
        assert [p.chains[0] for p in problems(split)] == chains
        assert {(p.task, p.category) for p in problems(split)} == {(task, "Subtraction")}
        assert problems(split)[0].text == SVAMP["Body"] + ". How much do you have to pay?"
        assert [(q.item, q.fault) for q in split.aside] == [
            ("row 3", "Equation is no arithmetic"), ("row 4", "answer is neither text nor a number"),
            ("row 5", "not a JSON object"),
        ]  # fmt: skip


MATHQA = {
    "Problem": "? % of 360 = 108", "Rationale": '"108 / 360 = 0.3 . answer : a"', "correct": "a", "category": "gain",
    "options": "a ) 30 % , b ) rs . 1,500 , c ) 4 / 12 , d ) data inadequate , e ) none of these",
}  # fmt: skip


def test_mathqa_as_letters_and_as_numbers(write, read):
    listed = MATHQA | {"Problem": "height ?", "options": "['a ) 12', 'b ) 15', 'c ) 10', 'd ) 8']", "correct": "c"}
    rows = [MATHQA | {"correct": letter, "Problem": f"{letter} ?"} for letter in "abcd"] + [listed]
    split = read("mathqa", MathqaFiles(rows=write([*rows, MATHQA | {"correct": "f"}, MATHQA | {"options": "30"}])))
    assert [p.answer for p in problems(split)] == ["a", "b", "c", "d", "c"]
    assert problems(split)[4].text == "height ?\na ) 12 , b ) 15 , c ) 10 , d ) 8"
    assert problems(split)[0].chains == ("108 / 360 = 0.3 . answer : a",)
    assert [q.fault for q in split.aside] == ["correct is none of the options", "options are not 'a ) ... , b ) ...'"]
    split = read("mathqa", MathqaFiles(rows=write(rows), answers="numeric"))
    assert [p.answer for p in problems(split)] == ["30", "1500", "0.3333333333333333", "10"]
    assert [q.fault for q in split.aside] == ["the right option is no number"]


def test_the_published_files_of_reft(write, read):
    row = {"item_id": "svamp_0", "question": "How many pairs?", "answer_value": "203.0"}
    chain, program = "29 species * 7 pairs\n\nTherefore, the answer is <203>.", "def solution():\n    return 29 * 7"
    maths = read(
        "reft", ReftFiles(rows=write([row | {"answer_cot": chain}, row | {"question": "b", "answer_cot": program}]))
    )
    assert problems(maths) == [Problem("maths", "How many pairs?", "203", (chain,))]
    assert [q.fault for q in maths.aside] == ["answer_cot is a program, and task is maths"]
    programs = read("reft", ReftFiles(rows=write([row | {"answer_cot": program}]), task="program"))
    assert problems(programs) == [Problem("program", "How many pairs?", "203", (program,))]
    letters = read("reft", ReftFiles(rows=write([{**row, "answer_value": "c"}, {"question": "b"}])))
    assert problems(letters) == [Problem("maths", "How many pairs?", "c")]
    assert [q.fault for q in letters.aside] == ["no key"]


@pytest.mark.parametrize(
    ("source", "files", "content", "message"),
    [
        ("svamp", SvampFiles, "{", "not JSON"),
        ("svamp", SvampFiles, "{}", "not a JSON list"),
        ("mathqa", MathqaFiles, "[]", "not a JSON list"),
        ("gsm8k", Gsm8kFiles, "\n", "no line with content"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(write, read, source, files, content, message):
    with pytest.raises(DataError, match=rf"rows\.json: {message}"):
        read(source, files(rows=write(content)))
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read(source, files(rows="none.json"))
