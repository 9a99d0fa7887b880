"""The grader of an imported job: gold, empty and hacked answers; what is down is invalid and not a reward."""

import json
import re
from pathlib import Path

import pytest

from tasks.data.records import Question
from tasks.graders import make_grader
from tasks.graders.batch import InvalidRewards, grade_all, stop_if_invalid
from tasks.graders.jobs import JobGrader, split_reasoning
from tasks.graders.openai.schema import SpecError
from tasks.graders.sandbox import WORKERS
from tasks.graders.target import targets
from tasks.params import JobReward, Reward
from tasks.rl.rewards import grade as rewards
from tests.graders.openai.endpoint import graded, serving

GRADER = json.loads((Path(__file__).parents[1] / "openai_job" / "job.json").read_text())["method"]["reinforcement"][
    "grader"
]
GOLD = "<think>3 + 4 = 7</think><answer>7</answer>"
SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
JSON_CHECK = {
    "type": "string_check", "name": "n", "input": "{{ sample.output_json.n }}", "reference": "{{ item.answer }}",
    "operation": "eq",
}  # fmt: skip
JUDGE = {"type": "score_model", "name": "judge", "model": "m", "input": [{"role": "user", "content": "?"}]}


def question(**item) -> Question:
    return Question("r", None, "job", "3 + 4?", turns=({"role": "user", "content": "3 + 4?"},), item=item)


SEVEN = question(answer="7")


@pytest.fixture(scope="module")
def grade():
    return make_grader(Reward(job=JobReward(grader=GRADER)))


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (GOLD, 1.0),
        ("3 + 4 = 7</think><answer>7</answer>", 1.0),  # the template wrote the opening tag
        ("<answer>7</answer>", 1.0),
        ("<answer> 7 </answer>", 0.8),  # right, but not exactly as asked
        ("<answer>8</answer>", 0.08),
        ("", 0.0),
        ("7", 0.0),
        ("<think>3 + 4 = 7", 0.0),
        ("<think><answer>7</answer>", 0.0),  # an answer inside thinking that never ends
        ("<answer>7</answer></think>", 0.0),  # or that has ended before it
        ("<answer>6</answer><answer>7</answer>", 0.0),
        ("{{ item.answer }}", 0.0),
        ("<answer>{{ item.answer }}</answer>", 0.0),
    ],
)
def test_gold_earns_one_and_the_empty_and_the_hacked_nothing(grade, completion, reward):
    assert grade(completion, SEVEN).reward == pytest.approx(reward)


def test_many_are_graded_as_each_alone_and_named_by_grader(grade):
    texts = [GOLD, "<answer>8</answer>", ""] * 4
    together = grade_all(grade, texts, [SEVEN] * len(texts))
    assert [g.reward for g in together] == [grade(text, SEVEN).reward for text in texts]
    assert together[0].sub_rewards == {"graders/number": 1.0, "graders/exact": 1.0}


def test_the_target_of_sft_earns_one(grade):
    (text,) = targets(SEVEN, template="<answer>{{ item.answer }}</answer>")
    assert grade(text, SEVEN).reward == 1.0
    assert targets(SEVEN) == [] == targets(question(), template="{{ item.answer }}")


def test_a_missing_variable_and_a_crash_are_counted_and_stop_nothing(grade):
    got, _, metrics = rewards(grade, [GOLD] * 20, [question()] + [SEVEN] * 19)
    assert got[0] == 0.0 and got[1] == 1.0
    assert metrics["errors/exact/invalid_variable"] == metrics["errors/number/python_grader_runtime"] == 1
    assert (metrics["num_graded"], metrics["invalid"], metrics["unresponsive"]) == (20, 0.0, 0.0)
    assert metrics["reward_graders/exact"] == 0.95


@pytest.mark.parametrize(
    ("output", "reward", "failure"),
    [
        ('{"n": 7}', 1.0, None),
        ('<think>so</think>\n{"n": 7}', 1.0, None),
        ('{"n": 8}', 0.0, None),
        ('{"n": 7, "m": 7}', 0.0, "sample_parse"),
        ('{"n": "7"}', 0.0, "sample_parse"),
        ("7", 0.0, "sample_parse"),
        ("", 0.0, "sample_parse"),
        ('{"n": NaN}', 0.0, "sample_parse"),
    ],
)
def test_an_output_that_is_not_of_the_response_format_earns_nothing(output, reward, failure):
    grade = make_grader(Reward(job=JobReward(grader=JSON_CHECK, response_format=FORMAT)))(output, SEVEN)
    assert (grade.reward, grade.failure) == (reward, failure)


def in_form(schema: dict, output: str):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return make_grader(Reward(job=JobReward(grader=JSON_CHECK, response_format=form)))(output, SEVEN)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "'#/$defs/missing' leads nowhere"),
        ({"properties": {"a": {"$ref": "https://example.org/a"}}}, "'https://example.org/a' leads nowhere"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#b"}}}}, "'#b' leads nowhere"),
        ({"$ref": "#/more/a", "more": {"a": {"items": {"$ref": "#/more/b"}}}}, "'#/more/b' leads nowhere"),
        ({"$ref": "#/title/a", "title": "A"}, "'#/title/a' leads nowhere"),
        ({"$ref": "#/minLength/0", "minLength": 1}, "'#/minLength/0' leads nowhere"),
        ({"$ref": "#/title", "title": "A"}, "no JSON schema: 'A' is not of type"),
        ({"$ref": "#/more", "more": {"type": "nothing"}}, "no JSON schema: 'nothing' is not"),
        ({"$ref": "#"}, "'#' leads to itself"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "'#/properties/a' leads to itself"),
        ({"anyOf": [{"type": "string"}, {"allOf": [{"$ref": "#"}]}]}, "'#' leads to itself"),
        ({"dependentSchemas": {"a": {"$ref": "#"}}}, "'#' leads to itself"),
    ],
)
def test_a_response_format_whose_references_cannot_be_followed_is_refused_by_their_name(schema, named):
    with pytest.raises(SpecError, match=f"^response_format: .*{re.escape(named)}"):
        in_form(schema, '{"n": 7}')


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"n": {"$ref": "#/$defs/n"}, "a": {"$ref": "#"}}, "$defs": {"n": {"type": "number"}}},
        {"$id": "https://a.org/a", "$ref": "b", "$defs": {"b": {"$id": "b", "$ref": "#/$defs/c", "$defs": {"c": {}}}}},
        {"enum": [{"n": 7}, {"$ref": "#/nowhere"}], "properties": {"$ref": {"type": "string"}}},
    ],
    ids=["its own parts", "of an id", "what is no reference"],
)
def test_references_within_the_schema_are_followed(schema):
    assert in_form(schema, '{"n": 7}').reward == 1.0


def test_an_output_that_cannot_be_held_against_the_response_format_is_not_of_it():
    hundredths = {"properties": {"n": {"type": "number", "multipleOf": 0.01}}}
    assert in_form(hundredths, '{"n": 7}').reward == 1.0
    nested: dict = {"properties": {"a": {"$ref": "#"}}}
    for _ in range(12):
        nested = {"allOf": [nested]}
    deep = '{"a": ' * 60 + "7" + "}" * 60
    for schema, output in ((hundredths, f'{{"n": {"7" * 400}}}'), (nested, deep)):
        grade = in_form(schema, output)
        assert (grade.reward, grade.failure) == (0.0, "sample_parse")
        assert grade.job.details["sample_parse"].startswith("not of the response format: ")


def test_a_judge_that_is_down_is_invalid_and_stops_the_run(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    grade = make_grader(Reward(job=JobReward(grader=JUDGE, judge_url="http://127.0.0.1:9/v1")))
    (got,) = grade_all(grade, [GOLD], [SEVEN])
    assert got.reward == 0.0 and got.invalid.startswith("model_grader_server: ")
    with pytest.raises(InvalidRewards, match=r"1 of 1 completions .*model_grader_server"):
        rewards(grade, [GOLD], [SEVEN])


def python(source: str) -> dict:
    return {"type": "python", "name": "mine", "source": f"def grade(sample, item):\n    {source}"}


def both(part: dict) -> dict:
    """A multi of `part` and a check."""
    graders = {"mine": part, "exact": {**JSON_CHECK, "name": "exact", "input": "{{ sample.output_text }}"}}
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": "mine + exact"}


def test_a_grader_that_always_raises_stops_the_run_by_its_name():
    grade = make_grader(Reward(job=JobReward(grader=both(python("return 1.0 / int(item['zero'])")))))
    with pytest.raises(InvalidRewards, match=r"grader 'mine' failed on 4 of 4 .*runtime, exception: ZeroDivisionError"):
        rewards(grade, ["7"] * 4, [question(answer="7", zero=0)] * 4)
    assert grade("7", question(answer="7", zero=0)).reward == 1.0  # alone it is 0, as documented


def test_a_variable_that_no_row_holds_stops_the_run_and_outputs_that_are_no_json_do_not():
    grade = make_grader(Reward(job=JobReward(grader=JSON_CHECK)))
    with pytest.raises(InvalidRewards, match=r"'n' failed on 4 of 4 .*item.answer"):
        rewards(grade, ['{"n": 7}'] * 4, [question()] * 4)
    for text in ("7, I think", '{"m": 7}'):  # both are the model's to mend
        assert rewards(grade, [text] * 4, [SEVEN] * 4)[0] == [0.0] * 4


def test_what_a_grader_never_saw_is_no_answer_that_it_read():
    grade = make_grader(Reward(job=JobReward(grader=JSON_CHECK)))
    lost, unseen = [question()] * 92, [SEVEN] * 8
    for texts in (["7, I think"] * 8, ["7" * 70_000] * 8):
        with pytest.raises(InvalidRewards, match=r"'n' failed on 92 of 92 .*item.answer"):
            rewards(grade, ['{"n": 7}'] * 92 + texts, lost + unseen)
    few = ['{"n": 7}'] * 3 + ["7, I think"] * 97
    assert rewards(grade, few, [question()] * 3 + [SEVEN] * 97)[0] == [0.0] * 100  # too few to tell


@pytest.mark.parametrize(
    "path", ["output_tools[0].function.name", "output_audio.data", "choices[0].message.tool_calls[0].function.name"]
)
def test_a_grader_of_tool_calls_or_sound_is_refused_by_name(path):
    part = {**JSON_CHECK, "input": f"{{{{ sample.{path} }}}}"}
    judge = {**JUDGE, "input": [{"role": "user", "content": [f"{{{{ sample.{path} }}}}"]}]}
    for grader in (part, judge, both(part)):
        with pytest.raises(SpecError, match=r"^reward\.job\.grader: the grader '\w+' reads {{ sample\..*remove it"):
            JobGrader(JobReward(grader=grader))
    JobGrader(JobReward(grader={**JSON_CHECK, "input": "{{ sample.output_json.tool_calls }}"}))


def test_a_formula_without_a_value_at_any_grades_is_refused_and_one_without_at_some_is_not():
    part = {**JSON_CHECK, "input": "{{ sample.output_text }}"}
    with pytest.raises(SpecError, match=r"calculate_output '1 / \(mine - mine\)' has no value"):
        JobGrader(JobReward(grader={**both(part), "calculate_output": "1 / (mine - mine)"}))
    with pytest.raises(SpecError, match="has no value"):  # a range of its own
        JobGrader(JobReward(grader={**both({**JUDGE, "range": [2, 3]}), "calculate_output": "log(1 - mine)"}))
    grade = make_grader(Reward(job=JobReward(grader={**both(part), "calculate_output": "mine / (mine + exact)"})))
    assert rewards(grade, ["8"] * 8, [SEVEN] * 8)[0] == [0.0] * 8  # while all are wrong: the model's to mend
    assert grade("7", SEVEN).reward == 0.5


def test_a_judges_replies_are_kept_in_the_file_asked_for(tmp_path):
    with serving(lambda request, n: graded(0.5)) as server:
        job = JobReward(grader=JUDGE, judge_url=server.url, judge_cache=str(tmp_path / "judge.sqlite"))
        for _ in range(2):
            assert make_grader(Reward(job=job))(GOLD, SEVEN).reward == 0.5
        assert len(server.requests) == 1


def test_time_out_concurrency_and_isolation_are_passed_on(monkeypatch):
    told = {}
    monkeypatch.setattr("tasks.graders.jobs.Judge.from_environment", lambda named, **options: told.update(options))
    monkeypatch.setattr("tasks.graders.jobs.Sandbox", lambda **options: told.update(options))
    monkeypatch.setattr("tasks.graders.jobs.make_batch_grader", lambda *_: lambda pairs: [])
    job = JobReward(grader=both(python("return 1.0")), judge_timeout=5, judge_concurrency=2, isolation="bubblewrap")
    JobGrader(job)._grade_all  # noqa: B018
    sources = [python("return 1.0")["source"]]
    assert told == {"isolation": "bubblewrap", "workers": WORKERS, "sources": sources}
    JobGrader(JobReward(**{**dict(job), "grader": JUDGE}))._grade_all  # noqa: B018
    told.pop("sources")
    assert told == {"isolation": "bubblewrap", "workers": WORKERS, "timeout": 5, "concurrency": 2, "cache": None}


def test_five_percent_may_be_invalid():
    stop_if_invalid(make_grader, ["down"], 20)
    with pytest.raises(InvalidRewards, match="2 x down"):
        stop_if_invalid(make_grader, ["down", "down"], 39)


def test_a_judge_without_an_address_says_what_to_set(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL"):
        make_grader(Reward(job=JobReward(grader=JUDGE)))(GOLD, SEVEN)


def test_a_bad_grader_is_refused_when_the_grader_is_made():
    with pytest.raises(SpecError, match=r"reward\.job\.grader"):
        make_grader(Reward(job=JobReward(grader={"type": "python", "source": "x = 1"})))


@pytest.mark.parametrize(
    ("completion", "split"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("\n<think>\na\n</think>\n\nb\n", ("a", "b")),
        ("a</think>b", ("a", "b")),
        ("b", ("", "b")),
        ("<think>a", ("a", "")),
        ("<think></think>", ("", "")),
        ("<think>a</think>b</think>c", ("a", "b</think>c")),
        ("b <think>a", ("", "b <think>a")),
    ],
)
def test_graders_see_what_follows_the_thinking(completion, split):
    assert split_reasoning(completion) == split
