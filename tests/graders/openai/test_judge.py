"""Judges over a real server: what is asked, what is tried again, and that no trouble of theirs raises."""

import json
import socket
import sqlite3
import threading
import time

import pytest

from tasks.graders.openai import Failure, Judge, make_batch_grader, make_openai_grader, parse_spec
from tests.graders.openai.endpoint import completion, dripping, graded, serving
from tests.graders.openai.published import GUIDE_LABEL_MODEL, LABEL_MODEL, RUN_SCORE_MODEL, SCORE_MODEL

SAMPLE, ITEM = {"output_text": "0.9"}, {"reference_answer": 1.0}  # the guide's own
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
TRUE_OR_FALSE = {**LABEL_MODEL, "labels": ["true", "false"], "passing_labels": ["true"]}
DIGITS = {**LABEL_MODEL, "labels": ["1", "5", "null"], "passing_labels": ["5"]}


def quick(url: str, **options) -> Judge:
    return Judge(url, "secret", **{"timeout": 5.0, "attempts": 3, "backoff": 0.01, **options})


def grade_with(script, spec=SCORE_MODEL, sample=SAMPLE, **options):
    with serving(script) as server, quick(server.url, **options) as judge:
        return make_openai_grader(parse_spec(spec, "g.json"), judge=judge)(sample, ITEM), server


def test_what_the_judge_is_asked():
    grade, server = grade_with(lambda request, n: graded(0.5))
    (request,) = server.requests
    assert request["model"] == "o4-mini-2025-04-16" and request["top_p"] == 1
    assert request["max_completion_tokens"] == 32768 and request["reasoning_effort"] == "medium"
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert request["messages"][1]["content"] == "Reference: 1.0. Model answer: 0.9"
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["steps", "result"]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert (grade.reward, grade.failures) == (0.5, {})
    assert grade.usage["judge-1"]["total_tokens"] == 324 and grade.seconds > 0


def test_parts_and_pictures():
    picture = {"type": "input_image", "image_url": "{{ item.reference_answer }}", "detail": "low"}
    content = [*RUN_SCORE_MODEL["input"][0]["content"], picture]
    _, server = grade_with(
        lambda *_: graded(1), {**RUN_SCORE_MODEL, "input": [{"role": "developer", "content": content}]}
    )
    (message,) = server.requests[0]["messages"]
    assert message["role"] == "system" and message["content"][0]["type"] == "text"
    assert message["content"][1] == {"type": "image_url", "image_url": {"url": "1.0", "detail": "low"}}


@pytest.mark.parametrize(
    ("content", "reward"),
    [
        ('{"steps": [], "result": 0.7}', 0.7),
        ("0.7", 0.7),
        (" 1\n", 1.0),
        ('{"result": 7}', 1.0),  # clamped to the range
        ('{"result": -1e300}', 0.0),
        ('{"result": 1' + "0" * 400 + "}", None),
        ('{"result": NaN}', None),
        ('{"result": 1e999}', None),
        ('{"result": "1.0"}', None),
        ('{"result": true}', None),
        ('{"score": 1}', None),
        ('```json\n{"steps": [], "result": 0.7}\n```', 0.7),
        ("```\n0.7\n```\n", 0.7),
        ('<think>0.1? {"result": 0}</think>\n{"steps": [], "result": 0.7}', 0.7),
        ('\n<think>\n\n</think>\n\n```json\n{"result": 0.7}\n```', 0.7),
        ('<think>{"result": 1}', None),  # thinking that never ends holds no result
        ('<think>a</think><think>b</think>{"result": 1}', None),
        ('Here it is:\n```json\n{"result": 1}\n```', None),
        ('```json\n{"result": 1}\n```\n```json\n{"result": 0}\n```', None),
        ('{"result": 1}</think>{"result": 0.5}', None),
        ("```", None),
        ("`````", None),
        ("1.0, as the answer says", None),
        ("[" * 100_000, None),
        ("", None),
        (None, None),
    ],
)
def test_a_result_is_a_number_or_nothing(content, reward):
    grade, server = grade_with(lambda *_: completion(content))
    assert grade.reward == (reward or 0.0)
    assert grade.failures == ({Failure.MODEL_GRADER_PARSE: 1} if reward is None else {})
    assert len(server.requests) == 1  # a bad grade is an answer: not asked for again


def test_a_range_of_its_own():
    spec = {**SCORE_MODEL, "range": [-1, 100]}
    assert grade_with(lambda *_: graded(77), spec)[0].reward == 77
    assert grade_with(lambda *_: graded(-5), spec)[0].reward == -1
    assert grade_with(lambda *_: graded("none"), spec)[0].reward == 0  # documented: 0, not the lowest


def test_a_refusal_is_counted_as_one():
    grade, _ = grade_with(lambda *_: completion(None, refusal="I cannot"))
    assert (grade.reward, grade.failures) == (0.0, {Failure.MODEL_GRADER_REFUSAL: 1})


@pytest.mark.parametrize(
    ("label", "said", "reward"),
    [
        (LABEL_MODEL, '{"steps": [], "result": "positive"}', 1.0),
        (LABEL_MODEL, "positive", 1.0),
        (LABEL_MODEL, "<think>neutral?</think>\n```\npositive\n```", 1.0),
        (LABEL_MODEL, '```json\n{"result": "neutral"}\n```', 0.0),
        (LABEL_MODEL, '{"result": "neutral"}', 0.0),
        (LABEL_MODEL, '{"result": "positive or neutral"}', None),
        (LABEL_MODEL, '{"result": 1}', None),
        (GUIDE_LABEL_MODEL, '{"result": "good"}', 1.0),
        (TRUE_OR_FALSE, "true", 1.0),
        (TRUE_OR_FALSE, " false\n", 0.0),
        (TRUE_OR_FALSE, '{"result": true}', 1.0),
        (TRUE_OR_FALSE, '{"result": "true"}', 1.0),
        (TRUE_OR_FALSE, "1", None),
        (DIGITS, "5", 1.0),
        (DIGITS, "```json\n1\n```", 0.0),
        (DIGITS, '{"result": 5}', 1.0),
        (DIGITS, "1.0", None),
        (DIGITS, "null", 0.0),
        (DIGITS, "{}", None),
    ],
)
def test_labels(label, said, reward):
    spec = parse_spec({"type": "multi", "graders": {"tone": label}, "calculate_output": "tone"}, "g.json")
    with serving(lambda *_: completion(said)) as server, quick(server.url) as judge:
        grade = make_openai_grader(spec, judge=judge)(SAMPLE, {"response": "fine"})
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["result"]["enum"] == label["labels"]
    assert (grade.reward, grade.sub_rewards) == (reward or 0.0, {"tone": reward or 0.0})
    assert grade.failures == ({Failure.MODEL_GRADER_PARSE: 1} if reward is None else {})


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {}, b"oops"),
        (503, {}, b""),
        (429, {"Retry-After": "0"}, b""),
        (200, {}, b"<html>"),
        (200, {}, b""),
        (200, {}, b'{"choices": []}'),
        None,
    ],
    ids=["500", "503", "429", "html", "nothing", "no choice", "hung up"],
)
def test_passing_trouble_is_tried_again(trouble):
    grade, server = grade_with(lambda request, number: trouble if number < 3 else graded(1))
    assert (grade.reward, grade.failures, len(server.requests)) == (1.0, {}, 3)


@pytest.mark.parametrize(
    ("script", "requests", "says"),
    [
        (lambda *_: (500, {}, b"oops"), 3, "status 500: oops"),
        (lambda *_: (401, {}, b"no such key"), 1, "status 401"),
        (lambda *_: (302, {"Location": "http://127.0.0.1:1/"}, b""), 1, "status 302"),
        (lambda *_: (200, {}, b'{"object": "list"}'), 3, "no chat completion: choices: Field required"),
        (lambda *_: (200, {}, b"[" * 100_000), 3, "no chat completion: (the answer): Invalid JSON"),
        (lambda *_: (200, {}, [b"x" * 2**20] * 6), 1, "more than 4194304 bytes"),
        (lambda *_: (200, {"Content-Encoding": "gzip"}, b"no gzip"), 3, "DecodingError"),
        (lambda *_: None, 3, "RemoteProtocolError"),
    ],
    ids=["500", "401", "redirect", "shape", "deep", "flood", "gzip", "hung up"],
)
def test_lasting_trouble_is_a_counted_failure(script, requests, says):
    grade, server = grade_with(script)
    assert (grade.reward, grade.failures) == (0.0, {Failure.MODEL_GRADER_SERVER: 1})
    assert says in grade.details[Failure.MODEL_GRADER_SERVER] and "secret" not in str(grade.details)
    assert len(server.requests) == requests


def test_a_null_in_what_a_completion_tells_of_itself_is_nothing():
    def script(request, number):
        told = json.loads(graded(0.5))
        return json.dumps(told | {"model": None, "usage": dict.fromkeys(told["usage"])}).encode()

    grade, server = grade_with(script)
    assert (grade.reward, grade.failures, len(server.requests)) == (0.5, {}, 1)
    tokens = dict.fromkeys(("prompt_tokens", "total_tokens", "completion_tokens", "cached_tokens"), 0)
    assert grade.usage == {SCORE_MODEL["model"]: tokens}


@pytest.mark.parametrize(
    "script", [lambda *_: time.sleep(3), lambda *_: (200, {}, dripping(3))], ids=["silent", "drips"]
)
def test_a_hanging_judge_costs_its_timeout_and_no_more(script):
    started = time.monotonic()
    grade, _ = grade_with(script, timeout=0.3, attempts=2)
    assert grade.failures == {Failure.MODEL_GRADER_SERVER: 1}
    assert time.monotonic() - started < 2.5


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with quick(url, attempts=2) as judge:
        (reply,) = judge.ask([REQUEST])
    assert "ConnectError" in reply.error and "attempt 2 of 2" in reply.error


def test_a_batch_is_asked_at_once_and_equal_requests_once():
    four = threading.Barrier(4, timeout=10)  # breaks unless four requests wait together

    def script(request, number):
        four.wait()
        return graded(0.5)

    pairs = [({"output_text": str(i % 8)}, ITEM) for i in range(32)]
    with serving(script) as server, quick(server.url, concurrency=4, attempts=1) as judge:
        grade_all = make_batch_grader(parse_spec(SCORE_MODEL, "g.json"), judge=judge)
        grades = grade_all(pairs)
        assert [grade.reward for grade in grades] == [0.5] * 32
        assert sum(grade.usage["judge-1"].get("total_tokens", 0) for grade in grades) == 8 * 324
        assert grade_all(pairs)[0].usage == {"judge-1": {}}
    assert len(server.requests) == 8 and server.most_active == 4


def test_order_is_kept_and_one_failure_is_one():
    def script(request, number):
        text = request["messages"][1]["content"][-1]
        return (400, {}, b"") if text == "3" else graded(int(text) / 10)

    with serving(script) as server, quick(server.url) as judge:
        grade_all = make_batch_grader(parse_spec(SCORE_MODEL, "g.json"), judge=judge)
        grades = grade_all([({"output_text": str(i)}, ITEM) for i in range(6)])
    assert [grade.reward for grade in grades] == [0.0, 0.1, 0.2, 0.0, 0.4, 0.5]
    assert [len(grade.failures) for grade in grades] == [0, 0, 0, 1, 0, 0]


def test_the_cache_on_disk_outlives_the_judge_and_holds_no_failure(tmp_path):
    path = tmp_path / "judge.sqlite"
    with serving(lambda request, number: (400, {}, b"") if number == 1 else graded(0.25)) as server:
        for expected in ("status 400", None, None):
            with quick(server.url, cache=path) as judge:
                (reply,) = judge.ask([REQUEST])
                assert (expected in reply.error) if expected else json.loads(reply.content)["result"] == 0.25
        assert len(server.requests) == 2
        with quick(server.url, cache=path) as judge:
            judge.ask([{**REQUEST, "seed": 1}])
        assert len(server.requests) == 3  # another request
    with sqlite3.connect(path) as file:
        assert "secret" not in str(file.execute("SELECT * FROM replies").fetchall())


def test_a_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{}" * 1000)
    with pytest.raises(ValueError, match=r"x\.json: file is not a database"):
        quick("http://127.0.0.1:1/v1", cache=tmp_path / "x.json")


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://[::1", "/v1"])
def test_a_base_url_that_is_none(url):
    with pytest.raises(ValueError, match="base_url"):
        Judge(url)


def test_from_the_environment():
    judge = Judge.from_environment({"OPENAI_BASE_URL": "http://localhost:8000/v1/"})
    assert judge.url == "http://localhost:8000/v1/chat/completions"
    judge.close()
    with pytest.raises(ValueError, match="OPENAI_BASE_URL"):
        Judge.from_environment({"OPENAI_API_KEY": "x"})
