"""`make app`: what the server takes and refuses, and the page in a real browser (skipped without chromium)."""

import shutil
from io import BytesIO
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from tasks.app import make_app, row, samples, trained
from tasks.data.pictures import open_upright
from tasks.data.records import Object, Record, Referring, write_jsonl
from tasks.graders.parse import format_answer
from tasks.predict import PredictError, Prediction

CHROMIUM = shutil.which("chromium")
HACK = "<script>document.title = 'hacked'</script><answer>"
GOLD = format_answer([(100, 200, 500, 600)], [0.9], "six")


def png(colour: str = "white") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Says:
    """A model that always says the same about any picture that can be read."""

    def __init__(self, found: Prediction):
        self.found = found

    def predict(self, picture: Path, task: str, asked: str) -> Prediction:
        try:
            open_upright(picture)
        except ValueError as error:
            raise PredictError(f"{picture}: {error}") from None
        return self.found


PREDICTORS = {
    "SFT": Says(Prediction(((4.0, 4.0, 20.0, 12.0),), (0.9,), completion=GOLD, annotated=png("green"))),
    "GRPO": Says(Prediction(failure="unclosed_answer", completion=HACK, annotated=png("red"))),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """Three test pictures, one of which is asked for an instruction."""
    pool = tmp_path_factory.mktemp("pool")
    box = (4.0, 4.0, 20.0, 12.0)
    labelled = [{"objects": (Object("six", box), Object("two", box))}, {"objects": (Object("five", box),)}]
    labelled += [{"referring": (Referring("the cup", box),)}]
    records = [Record(f"{n}", f"{n}.png", 40, 20, f"{n}", **labels) for n, labels in enumerate(labelled)]
    for record in records:
        (pool / record.image).write_bytes(png())
    write_jsonl(pool / "test.jsonl", records)
    return pool


@pytest.fixture(scope="module")
def app(pool):
    return make_app("digits, k = 4", PREDICTORS, samples(pool), pool)


@pytest.fixture
def client(app):
    return TestClient(app, base_url="http://127.0.0.1")


def post(client, task: str = "detection", picture: bytes = png()):
    headers = {"Content-Type": "application/octet-stream"}
    return client.post("/answer", params={"task": task, "asked": "six"}, content=picture, headers=headers)


def test_a_sample_is_the_first_question_about_its_picture(pool, tmp_path):
    assert [(q.task, q.asked) for q in samples(pool)] == [
        ("detection", "six"), ("detection", "five"), ("grounding", "the cup")
    ]  # fmt: skip
    with pytest.raises(PredictError, match=r"no test\.jsonl; `dvc repro prepare` makes it"):
        samples(tmp_path)


def test_only_what_is_trained_is_shown(tmp_path):
    (tmp_path / "sft-4-0").mkdir()
    assert trained(tmp_path, ["sft", "grpo"], 4, 0) == {"sft": tmp_path / "sft-4-0"}
    with pytest.raises(PredictError, match=r"sft-8-0, .*grpo-8-0; `dvc repro` trains them"):
        trained(tmp_path, ["sft", "grpo"], 8, 0)


def test_what_is_stated_is_said_in_words():
    assert row("SFT", PREDICTORS["SFT"].found)["stated"] == "[4, 4, 20, 12] with confidence 0.90"
    assert row("SFT", Prediction(((4.0, 4.0, 20.0, 12.0),)))["stated"] == "[4, 4, 20, 12]"  # grounding
    assert row("SFT", Prediction(label="a cat"))["stated"] == "a cat"
    assert row("SFT", Prediction())["stated"] == "no objects"
    assert row("SFT", Prediction(failure="no_answer"))["stated"] == "nothing that can be read"


def test_every_policy_answers_about_the_posted_picture(client):
    answers = post(client).json()
    assert [(a["name"], a["failure"]) for a in answers] == [("SFT", None), ("GRPO", "unclosed_answer")]
    assert answers[1]["completion"] == HACK and answers[0]["picture"].startswith("data:image/png;base64,")


def test_what_cannot_be_used_is_refused_in_words(client):
    refused = post(client, picture=b"not a picture")
    assert refused.status_code == 422 and "not a JPEG, PNG or WebP picture" in refused.json()["detail"]
    assert post(client, task="theft").status_code == 422
    assert client.get("/samples/3").status_code == 404
    assert client.get("/samples/0").content == png()
    assert client.get("/docs").status_code == 404


def test_another_sites_name_for_this_server_is_refused(app):
    assert TestClient(app, base_url="http://evil.example").get("/").status_code == 400


@pytest.fixture
def url(app):
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_the_page_in_a_browser(url, tmp_path):
    """A sample and a file are asked about; no request leaves, no markup of a model runs, axe finds nothing."""
    (tmp_path / "own.png").write_bytes(png("blue"))
    (tmp_path / "own.txt").write_text("words")
    trouble, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        page.get_by_role("button", name="Test picture 3").click()
        assert (page.locator("select").input_value(), page.locator("[name=asked]").input_value()) == (
            "grounding", "the cup"
        )  # fmt: skip
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("article h2")).to_have_text(["SFT", "GRPO"])
        assert page.locator("article pre").nth(1).inner_text().startswith("<script>")
        assert page.title() == "kshot-rft: try digits, k = 4"
        assert page.locator("article img").first.get_attribute("alt") == "SFT: [4, 4, 20, 12] with confidence 0.90"
        found = Axe().run(page)
        page.locator("[type=file]").set_input_files(tmp_path / "own.txt")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("[role=alert]")).to_contain_text("not a JPEG, PNG or WebP picture")
        page.locator("[type=file]").set_input_files(tmp_path / "own.png")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("article")).to_have_count(2)
        browser.close()
    assert found.violations_count == 0, found.generate_report()
    assert trouble == []
    assert {r for r in requests if not r.startswith((url, "data:", "blob:"))} == set()
