"""The pages in a real browser: nothing is fetched, nothing fails, the cases can be found, and all can read them.

Needs the `chromium` of the system (`apt-get install chromium`); without it these tests are skipped.
"""

import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tasks import report as stage
from tasks.overview import overview
from tests.reporting.fake_study import make_params, write_study

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
CASES = ".case:visible"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PAPER = {"width": 688, "height": 1016}  # A4 within the page's margins of 14 mm, in CSS pixels


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    work = write_study(tmp_path_factory.mktemp("study"), make_params(k=(1, 4), seed=(0, 1), num_pictures=20))
    stage.report(**vars(work))
    return (work.out / "report.html").as_uri()


@pytest.fixture(scope="module")
def overview_url(tmp_path_factory) -> str:
    """Of a detection, a classification and a grounding study."""
    root, reports = tmp_path_factory.mktemp("overview"), []
    for task in ("detection", "classification", "grounding"):
        params = make_params(k=(1, 4), seed=(0, 1, 2), num_pictures=2, study=task)
        work = write_study(root / task, params, num_pictures=8, task=task)
        stage.report(**vars(work))
        reports.append(work.out)
    overview(reports, root / "docs")
    return (root / "docs" / "overview.html").as_uri()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, url):
    """Opens the report, or the page at `address`; at the end, no message on the console, no error, and no request but
    for the file itself.
    """
    trouble, requests, contexts, opened = [], [], [], set()

    def open_it(scheme: str = "light", viewport: dict = DESKTOP, address: str = url):
        context = chromium.new_context(color_scheme=scheme, viewport=viewport, bypass_csp=False)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        opened.add(address)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert trouble == []
    assert {request for request in requests if not request.startswith("data:")} == opened


def of(page, name: str) -> list[str]:
    """`data-name` of the cases that are shown, in their order."""
    return page.locator(CASES).evaluate_all(f"nodes => nodes.map(node => node.getAttribute('data-{name}'))")


def test_the_largest_k_and_the_largest_difference_come_first(open_page):
    page = open_page()
    gains = [abs(float(gain)) for gain in of(page, "gain-grpo")]
    assert len(gains) == 12 and gains == sorted(gains, reverse=True)
    assert set(of(page, "k")) == {"4"}
    assert page.locator(".found").inner_text() == "12 of 20 cases"
    page.get_by_role("button", name="Show 12 more").click()
    assert len(of(page, "k")) == 20 and not page.get_by_role("button", name="Show 12 more").is_visible()


def test_filters_narrow_and_order_the_cases(open_page):
    page = open_page()
    page.get_by_label("Who is right").select_option("GRPO right, SFT wrong")
    page.get_by_label("First").select_option("GRPO's largest loss")
    gains = [float(gain) for gain in of(page, "gain-grpo")]
    assert gains and gains == sorted(gains) and set(of(page, "outcome-grpo")) == {"rft_only"}
    category = of(page, "category")[0]
    page.get_by_label("Category").select_option(category)
    assert set(of(page, "category")) == {category}
    page.locator("select[name=k]").select_option("1")
    assert set(of(page, "k")) <= {"1"}


def test_the_algorithm_can_be_chosen(open_page, tmp_path):
    params = make_params(k=(4,), seed=(0,), num_pictures=24, algorithms=("grpo", "ppo"))
    work = write_study(tmp_path, params, num_pictures=24)
    stage.report(**vars(work))
    page = open_page(address=(work.out / "report.html").as_uri())
    for algorithm in ("grpo", "ppo"):
        page.get_by_label("RFT is").select_option(algorithm)
        page.get_by_label("Who is right").select_option("RFT right, SFT wrong")
        assert set(of(page, f"outcome-{algorithm}")) == {"rft_only"}


def test_an_empty_choice_says_so(open_page):
    page = open_page()
    for outcome in ("rft_only", "sft_only", "neither", "both"):
        for category in page.locator("[name=category] option").evaluate_all("options => options.map(o => o.value)"):
            page.locator("[name=outcome]").select_option(outcome)
            page.locator("[name=category]").select_option(category)
            num = len(of(page, "k"))
            assert page.locator(".found").inner_text().startswith("No case is like that" if num == 0 else f"{num} of")


def test_a_policy_can_be_hidden_with_its_boxes_and_its_words(open_page):
    page = open_page()
    assert page.locator(f"{CASES} .of-sft").first.is_visible()
    assert page.locator(f"{CASES} div.of-base:visible").count() == 0
    page.locator("[name=source][value=sft]").uncheck()
    page.locator("[name=source][value=base]").check()
    assert page.locator(f"{CASES} .of-sft:visible").count() == 0
    assert page.locator(f"{CASES} div.of-base:visible").count() == 12


def test_every_picture_has_text_and_the_whole_answer_beside_it(open_page):
    page = open_page()
    for case in page.locator(CASES).all():
        assert "Ground truth:" in case.locator("svg.picture").get_attribute("aria-label")
        assert case.locator("h4").inner_text().startswith("Detect all '")
        said = case.locator("pre").all_text_contents()
        assert len(said) == 3 and all(said)  # base, SFT, GRPO
    assert any("<script>alert('gotcha')</script>" in text for text in page.locator("pre").all_text_contents())


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_only_tables_scroll_sideways(open_page, viewport):
    page = open_page(viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, scheme):
    """WCAG 2 A and AA, contrast among it."""
    found = Axe().run(open_page(scheme), options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.violations_count == 0, found.generate_report()
    assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_it_prints_the_first_cases_on_a_few_pages(open_page):
    page = open_page("dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".filters").is_visible() and len(of(page, "k")) == 12
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and 2 <= pdf.count(b"/Type /Page\n") <= 10


def test_the_tables_of_three_tasks_and_two_algorithms_fit_on_paper(open_page, tmp_path):
    params = make_params(k=(1, 4), seed=(0, 1, 2), num_pictures=2, algorithms=("grpo", "ppo"))
    work = write_study(tmp_path, params, num_pictures=8, task="all")
    stage.report(**vars(work))
    page = open_page(viewport=PAPER, address=(work.out / "report.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER["width"]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_overview_is_read_on_any_screen(open_page, overview_url, viewport):
    page = open_page(viewport=viewport, address=overview_url)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.get_by_role("rowheader", name="grounding").first.is_visible()
    radar = page.get_by_role("img", name="Mean reward of Base, SFT, GRPO by study")
    assert radar.is_visible() and radar.bounding_box()["width"] > 0.8 * min(viewport["width"], 500)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_overview(open_page, overview_url, scheme):
    page = open_page(scheme, address=overview_url)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.violations_count == 0, found.generate_report()
    assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_the_overview_links_to_each_report(open_page, overview_url):
    links = open_page(address=overview_url).locator("tbody a").evaluate_all("all => all.map(a => a.href)")
    assert [link.rsplit("/", 3)[1:] for link in links] == [
        [task, "report", "report.html"] for task in ("detection", "classification", "grounding")
    ]
    assert all(Path(url2pathname(urlparse(link).path)).is_file() for link in links)
