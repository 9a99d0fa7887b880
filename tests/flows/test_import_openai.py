"""An OpenAI job becomes a study that Hydra composes; what cannot be honoured is named, and nothing is written."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from flows import compose as composing
from flows import import_openai
from flows.compose import CONF, compose
from tasks.data.records import read_records
from tasks.graders.jobs import JobGrader
from tasks.jobs import read_job, sft_target
from tasks.params import validate
from tasks.prepare import prepare
from tasks.schema.dataset import OpenaiFiles

EXAMPLE = Path(__file__).parents[1] / "openai_job"
JOB = json.loads((EXAMPLE / "job.json").read_text())
FILES = ["--train", str(EXAMPLE / "train.jsonl"), "--validation", str(EXAMPLE / "valid.jsonl")]
CHECK = {
    "type": "string_check",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ that the command writes to."""
    copied = tmp_path / "repo" / "conf"
    shutil.copytree(CONF, copied)
    monkeypatch.setattr(composing, "CONF", copied)
    monkeypatch.setattr(import_openai, "CONF", copied)
    return copied


def changed(path: str, value: object) -> dict:
    """The example job with a value at a dotted path ('-' in the place of the value takes it away)."""
    job = copy.deepcopy(JOB)
    *most, last = path.split(".")
    section = job
    for name in most:
        section = section[name]
    section[last] = value
    return job


def run(tmp_path: Path, job: dict, *more: str, rows: dict[str, list[dict]] | None = None) -> int:
    (tmp_path / "job.json").write_text(json.dumps(job))
    files = list(FILES)
    for place, split in ((1, "train"), (3, "validation")):
        if rows and split in rows:
            files[place] = str(tmp_path / f"{split}.jsonl")
            Path(files[place]).write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    return import_openai.main([str(tmp_path / "job.json"), *files, "--model", "tiny", *more])


def listed(conf: Path) -> list[Path]:
    return sorted(conf.rglob("*.yaml"))


def hyper(**values) -> dict:
    return changed("method.reinforcement.hyperparameters", values)


def test_the_example_becomes_a_study_that_grades_as_its_job_does(conf, tmp_path, capsys):
    assert run(tmp_path, JOB) == 0
    told = capsys.readouterr().out
    params = validate(compose(["+experiment=sums"]), "sums")
    assert (params.study, params.grid.k, params.grid.seed, params.dataset.source) == ("sums", [64], [0], "openai")
    assert (params.rft.steps, params.rft.prompts_per_step, params.rft.eval_steps) == (16, 8, 4)
    assert params.warmup.steps == 0 and params.reward.job.target == "<answer>{{ item.answer }}</answer>"
    assert params.reward.job.grader == JOB["method"]["reinforcement"]["grader"]
    assert JobGrader(params.reward.job).parts.keys() == {"number", "exact"}
    for said in (
        "64 to train on",
        "learning rate 0.0003",
        "16 of the training rows",
        "python -m flows.sweep +experiment=sums",
    ):
        assert said in told
    assert run(tmp_path, JOB) == 0  # again: its own files are written over


def test_multipliers_effort_and_samples_become_numbers(conf, tmp_path, capsys):
    asked = {"learning_rate_multiplier": 0.5, "compute_multiplier": 1.5, "reasoning_effort": "high", "eval_samples": 3}
    assert run(tmp_path, hyper(**asked, n_epochs=1, batch_size=256)) == 0
    params = validate(compose(["+experiment=sums"]), "sums")
    assert (params.rft.learning_rate, params.rft.num_generations) == (5e-5, 12)
    assert (params.rft.max_completion_length, params.grade.max_new_tokens, params.grade.val_samples) == (256, 256, 3)
    assert (params.rft.prompts_per_step, params.rft.steps) == (64, 1)  # no more prompts a step than there are rows
    assert "3 answers a row, sampled at temperature 1" in capsys.readouterr().out


def test_auto_and_nothing_mean_the_same(conf, tmp_path, capsys):
    names = (
        "batch_size",
        "n_epochs",
        "learning_rate_multiplier",
        "compute_multiplier",
        "eval_interval",
        "eval_samples",
    )
    assert run(tmp_path, hyper(**dict.fromkeys(names, "auto"))) == 0
    auto = compose(["+experiment=sums"])
    assert run(tmp_path, hyper()) == 0
    assert compose(["+experiment=sums"]) == auto
    assert auto["rft"]["steps"] == 40  # of the preset's 40 whole passes: 5 over 64 rows by 8


def answered() -> dict:
    """The example job as GET /fine_tuning/jobs/{id} gives it."""
    job = copy.deepcopy(JOB)
    job["user_provided_suffix"] = job.pop("suffix")
    job["method"] |= {"supervised": None, "dpo": None}
    job["method"]["reinforcement"]["hyperparameters"] |= {"eval_samples": None, "reasoning_effort": None}
    job["method"]["reinforcement"]["response_format"] = None
    return job | {
        "object": "fine_tuning.job", "id": "ftjob-abc123", "created_at": 1721764800, "status": "succeeded",
        "finished_at": 1721770000, "fine_tuned_model": "ft:o4-mini:org::abc", "organization_id": "org-123",
        "result_files": ["file-result"], "trained_tokens": None, "error": {}, "estimated_finish": None,
        "integrations": [], "metadata": None, "usage_metrics": None, "shared_with_openai": False, "eval_id": None,
        "hyperparameters": None,
    }  # fmt: skip


def test_a_job_as_the_api_returns_it_is_the_job_that_was_asked_for(conf, tmp_path, capsys):
    assert run(tmp_path, JOB) == 0
    asked = compose(["+experiment=sums"])
    capsys.readouterr()
    assert run(tmp_path, answered()) == 0
    assert compose(["+experiment=sums"]) == asked
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("object ")]
    assert '"fine_tuning.job", id "ftjob-abc123", status "succeeded"' in line and line.endswith(": hosted; not used")
    assert "eval_id" not in line and "trained_tokens" not in line


def test_a_null_in_a_grader_is_a_key_that_is_not_there(conf, tmp_path):
    judge = {"type": "score_model", "name": "judge", "model": "m", "input": [{"role": "user", "content": "?"}],
             "range": None, "sampling_params": {"seed": None, "temperature": 0.5}, "pass_threshold": None}  # fmt: skip
    spec = spec_of(tmp_path, judge)
    assert spec.range == [0, 1] and spec.sampling_params.model_dump(exclude_none=True) == {"temperature": 0.5}


@pytest.mark.parametrize("source", ["${item}", "\\${a}", "\\\\${a:b}", "$${", "a \\ ${", "${oc.env:HOME}"])
def test_what_yaml_and_hydra_would_read_otherwise_stays_as_it_is(conf, tmp_path, source):
    text = f"def grade(sample, item):\n    return len({source!r})\n"
    assert run(tmp_path, changed("method.reinforcement.grader", {"type": "python", "name": "p", "source": text})) == 0
    assert compose(["+experiment=sums"])["reward"]["job"]["grader"]["source"] == text


@pytest.mark.parametrize(
    ("job", "named"),
    [
        (changed("method.type", "supervised"), "method.type"),
        (changed("method.dpo", {}), "method.dpo"),
        (changed("modle", "o4-mini"), "modle"),
        (changed("modle", None), "modle"),
        (answered() | {"step_count": 7}, "step_count"),
        (changed("method.reinforcement.grader", None), "method.reinforcement.grader: Field required"),
        (changed("hyperparameters", {"n_epochs": 3}), "hyperparameters"),
        (changed("integrations", [{"type": "wandb"}]), "integrations"),
        (changed("seed", -1), "seed"),
        (hyper(batch_size=257), "hyperparameters.batch_size"),
        (hyper(n_epochs=51), "hyperparameters.n_epochs"),
        (hyper(n_epochs=2.5), "hyperparameters.n_epochs"),
        (hyper(learning_rate_multiplier=0), "hyperparameters.learning_rate_multiplier"),
        (hyper(compute_multiplier=10.5), "hyperparameters.compute_multiplier"),
        (hyper(eval_interval=0), "hyperparameters.eval_interval"),
        (hyper(reasoning_effort="extreme"), "hyperparameters.reasoning_effort"),
        (hyper(schedule="cosine"), "hyperparameters.schedule"),
        (changed("method.reinforcement.grader", {**CHECK, "operation": "is"}), "operation"),
        (
            changed("method.reinforcement.grader", {**{k: CHECK[k] for k in ("input", "reference")},
                    "type": "text_similarity", "evaluation_metric": "cosine"}),
            "cosine compares embeddings",
        ),
        (changed("method.reinforcement.grader.graders.exact", {"type": "multi", "graders": {}}), "within a multi"),
        (changed("method.reinforcement.response_format", {"type": "json_object"}), "response_format"),
        (
            changed("method.reinforcement.response_format",
                    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}),
            "no JSON schema",
        ),
        (
            changed("method.reinforcement.response_format",
                    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/$defs/a"}}}),
            "response_format: the reference '#/$defs/a' leads nowhere",
        ),
        (
            changed("method.reinforcement.grader.graders.exact.input", "{{ sample.output_tools[0].function.name }}"),
            "job.json: method.reinforcement.grader: the grader 'exact' reads {{ sample.output_tools[0].function",
        ),
        (
            changed("method.reinforcement.grader.calculate_output", "number / (exact - exact)"),
            "job.json: method.reinforcement.grader: calculate_output 'number / (exact - exact)' has no value",
        ),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_honoured_is_refused_by_name(conf, tmp_path, capsys, job, named):
    before = listed(conf)
    assert run(tmp_path, job) == 2
    assert named in capsys.readouterr().err
    assert listed(conf) == before


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (hyper(batch_size=300), "hyperparameters.batch_size: 300 is neither a whole number from 1 to 256 nor 'auto'"),
        (hyper(n_epochs="all"), 'n_epochs: "all" is neither a whole number from 1 to 50 nor \'auto\''),
        (hyper(compute_multiplier=0), "compute_multiplier: 0 is neither a number above 0.00001 and at most 10 nor"),
        (hyper(learning_rate_multiplier=-1), "learning_rate_multiplier: -1 is neither a number above 0 nor 'auto'"),
        (hyper(eval_samples={"a": 1}), 'eval_samples: {"a": 1} is neither a whole number of 1 or more nor \'auto\''),
        (hyper(reasoning_effort="extreme"), 'reasoning_effort: Input should be \'default\', \'low\', \'medium\' or '
         '\'high\', not "extreme"'),
        (changed("seed", -1), "seed: Input should be greater than or equal to 0, not -1"),
        (changed("integrations", [{"type": "wandb"}]), "  integrations: remove it; runs are shown in MLflow"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_told_once_with_what_is_allowed(conf, tmp_path, capsys, job, line):
    assert run(tmp_path, job) == 2
    told = capsys.readouterr().err
    assert "1 key(s) that cannot be honoured" in told and line in told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps(JOB)[:-1] + ', "seed": 3}', "job.json: the key 'seed' is given twice"),
        (json.dumps(JOB).replace('"type": "multi"', '"name": "a", "type": "multi"'), "the key 'name' is given twice"),
        ("[" * 100_000, "job.json: lists and objects are nested too deep"),
        ("{", "job.json: no JSON: "),
    ],
)
def test_a_file_that_is_no_job_is_refused_with_its_name(conf, tmp_path, capsys, text, named):
    before = listed(conf)
    (tmp_path / "job.json").write_text(text)
    assert import_openai.main([str(tmp_path / "job.json"), *FILES, "--model", "tiny"]) == 2
    assert named in capsys.readouterr().err
    assert listed(conf) == before


ROW = {"messages": [{"role": "user", "content": "1 + 1?"}], "answer": "2"}
ASKED = ROW["messages"][0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ({"train": [{**ROW, "tools": [{"type": "function"}]}]}, "line 1: tools cannot be honoured"),
        ({"train": [ROW, {"answer": "2"}]}, "line 2: messages"),
        ({"train": [{"messages": [ASKED, {"role": "assistant", "content": "2"}]}]}, "last message is not the user's"),
        ({"train": [{"messages": [{"role": "tool", "content": "x"}, ASKED]}]}, "role is none of"),
        ({"train": [{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}]}, "'image_url'"),
        ({"train": [{"messages": [{**ASKED, "tool_calls": []}]}]}, "tool_calls cannot be honoured"),
        ({"train": [ROW]}, "none is left to learn from"),
        ({"train": []}, "no line with content"),
        ({"validation": [{"messages": [{"role": "user", "content": str(n)}]} for n in range(1001)]}, "1,000 at most"),
        (
            {"train": [ROW, {"messages": [{"role": "user", "content": "2 + 2?"}]}], "validation": [ROW]},
            "train and valid",
        ),
        (
            {"train": [{"messages": [{"role": "user", "content": "2?"}]}, ROW], "validation": [{**ROW, "answer": 3}]},
            "train and valid",
        ),
        ({"train": [ROW, {**ROW, "answer": "3"}]}, "none is left to learn from"),  # the test has its conversation
    ],
)
def test_rows_that_cannot_be_honoured_are_refused_with_their_line(conf, tmp_path, capsys, rows, named):
    before = listed(conf)
    assert run(tmp_path, JOB, rows=rows) == 2
    assert named in capsys.readouterr().err
    assert listed(conf) == before


def asked(text: str, answer: int) -> dict:
    return {"messages": [{"role": "user", "content": text}], "answer": str(answer)}


def test_rows_that_differ_in_case_or_item_are_kept_and_equal_ones_counted(conf, tmp_path, capsys):
    rows = [asked(text, n) for text in ("print A", "Print A", "print a") for n in range(4)]
    shuffled = dict(reversed(rows[0].items()))
    assert run(tmp_path, JOB, rows={"train": [*rows, rows[3], shuffled], "validation": [asked("PRINT A", 0)]}) == 0
    told = capsys.readouterr().out
    assert "train.jsonl: 2 row(s) dropped, equal to another in messages and item" in told
    assert "rows: 8 to train on, 1 to validate on; test: 4 of the training rows" in told  # a conversation stays whole


def test_the_study_holds_out_as_many_rows_as_its_pool(conf, tmp_path, capsys):
    rows = [asked(f"{n % 7}?", n) for n in range(30)]
    assert run(tmp_path, JOB, rows={"train": rows}) == 0
    params = validate(compose(["+experiment=sums"]), "sums")
    files = {"train": {"rows": str(tmp_path / "train.jsonl")}, "val": {"rows": FILES[3]}}
    summary = prepare(params.dataset.model_copy(update={k: OpenaiFiles(**v) for k, v in files.items()}), tmp_path / "p")
    assert [summary["train"]] == params.grid.k and summary["test"] == params.dataset.num_test > 6
    split = {name: {r.problem.text for r in read_records(tmp_path / f"p/{name}.jsonl")} for name in ("train", "test")}
    assert not split["train"] & split["test"]


def test_rows_without_what_the_grader_names_are_told_of(conf, tmp_path, capsys):
    rows = [{"messages": [{"role": "user", "content": str(n)}], **({"answer": "1"} if n else {})} for n in range(10)]
    assert run(tmp_path, JOB, rows={"train": rows}) == 0
    assert "1 of 10 train rows lack 'answer'" in capsys.readouterr().out


def test_braces_where_no_template_stands_are_no_variable(conf, tmp_path, capsys):
    judge = {"type": "label_model", "name": "{{x}}", "model": "{{x}}", "labels": ["{{x}}", "b"],
             "passing_labels": ["{{x}}"], "input": [{"role": "user", "content": "{{ item.gone }}"}]}  # fmt: skip
    graders = {"labels": judge, "name": {**CHECK, "reference": "{{ item.away }}"}}
    grader = {"type": "multi", "name": "{{x}}", "graders": graders, "calculate_output": "labels + name"}
    assert run(tmp_path, changed("method.reinforcement.grader", grader)) == 0
    told = capsys.readouterr().out
    assert "lack 'gone'" in told and "lack 'away'" in told  # of graders called as those keys are


@pytest.mark.parametrize("suffix", ["123", "1_000", "1e5", "true", "null", "nULL", "on", "no", "0x10"])
def test_a_name_that_is_no_text_to_yaml_or_hydra_gets_a_prefix_and_is_not_taken_by_hand(conf, tmp_path, capsys, suffix):
    assert run(tmp_path, changed("suffix", suffix)) == 0
    assert f"python -m flows.sweep +experiment=job_{suffix}" in capsys.readouterr().out
    params = compose([f"+experiment=job_{suffix}"])
    assert (params["study"], params["dataset"]["source"]) == (f"job_{suffix}", "openai")
    before = listed(conf)
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, JOB, "--name", suffix)
    assert f"--name: '{suffix}' is no text to YAML or Hydra" in (told := capsys.readouterr().err)
    assert f"give job_{suffix}" in told
    assert listed(conf) == before


def test_a_folder_that_is_a_number_gives_its_study_a_name(conf, tmp_path):
    folder = tmp_path / "123"
    folder.mkdir()
    assert run(folder, changed("suffix", None)) == 0
    assert compose(["+experiment=job_123"])["study"] == "job_123"


def test_a_study_of_ours_is_not_written_over(conf, tmp_path, capsys):
    assert run(tmp_path, JOB, "--name", "fsod") == 2
    assert "fsod.yaml is there already" in capsys.readouterr().err
    assert compose(["+experiment=fsod"])["dataset"]["source"] == "digits"


def test_a_response_format_is_asked_for_in_the_system_message(conf, tmp_path, capsys):
    schema = {"type": "object", "properties": {"answer": {"type": "number"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    assert run(tmp_path, changed("method.reinforcement.response_format", form)) == 0
    params = compose(["+experiment=sums"])
    assert json.dumps(schema) in params["prompt"]["job"]
    assert params["reward"]["job"]["response_format"] == form


def spec_of(tmp_path: Path, grader: dict):
    (tmp_path / "job.json").write_text(json.dumps(changed("method.reinforcement.grader", grader)))
    return read_job(tmp_path / "job.json")[1]


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, "{{ item.answer }}"),
        ({"operation": "ilike"}, "{{ item.answer }}"),
        ({"operation": "ne"}, None),  # what the output must not be
        ({"input": "{{ sample.output_json.answer }}"}, None),  # a part of the output
        ({"reference": "yes"}, None),  # nothing of the row
        ({"reference": "{{ item.answer }}{{ sample.output_text }}"}, None),
    ],
)
def test_sft_is_taught_the_reference_that_the_whole_output_is_compared_with(tmp_path, changes, target):
    assert sft_target(spec_of(tmp_path, {**CHECK, **changes})) == target


def test_without_such_a_grader_sft_takes_no_steps(conf, tmp_path, capsys):
    grader = {"type": "python", "source": "def grade(sample, item):\n    return 1.0\n"}
    assert run(tmp_path, changed("method.reinforcement.grader", grader)) == 0
    assert compose(["+experiment=sums"])["sft"]["steps"] == 0
    assert "SFT cannot be taught" in capsys.readouterr().out
