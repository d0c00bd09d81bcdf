"""The pages in a real browser, on a desk and on a phone: nothing is cut off, nothing is blocked."""

import os
import shutil
from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind
from submissions.context import Hub
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples

PATHS = (
    "/",
    "/?suite=demo",
    "/submit",
    "/queue",
    "/suites",
    "/suites/open-llm-v2",
    "/evaluations/1",
    "/evaluations/2",
    "/evaluations/3",
    "/evaluations/1/samples/IFEval",
    "/api/v1/docs",
    "/compare?suite=open-llm-v2&pin=1",
    "/models/acme/failed",
    "/nowhere",
)
SERIOUS = ("serious", "critical")
LONG = "acme-research/an-extraordinarily-long-model-name-that-goes-on-for-a-while-v2.1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no Chromium on PATH: install it (apt-get install chromium).")
        pytest.skip("PAGES NOT TESTED IN A BROWSER: there is no Chromium on PATH")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def filled(hub: Hub, server: str) -> str:
    """URL of a site with a board, a failure, something that waits, workers and samples."""
    suite = hub.suites["open-llm-v2"]
    values = {benchmark.name: 41.5 for benchmark in suite.benchmarks}
    with hub.writing() as session:
        add_evaluation(session, suite, model=LONG, values=values, chat_template=True)
        failed = {"failure": FailureKind.ENGINE, "sentence": "The engine stopped. " * 9, "log_tail": "x" * 400}
        add_evaluation(session, suite, model="acme/failed", state=EvaluationState.FAILED, **failed)
        add_evaluation(session, suite, model="acme/waits", state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, suite, model="acme/trial", values=values, limit=3)
        add_worker(session, "engine-1", kind="engine", now=NOON, device="NVIDIA H100 80GB HBM3")
    keep_samples(hub, 1, "IFEval", task="leaderboard_ifeval", records=[choice_sample(0) | {"target": "y" * 300}])
    return server


@pytest.fixture
def readable(hub: Hub, server: str) -> str:
    """URL of a site with a few rows to choose from."""
    demo = hub.suites["demo"]
    with hub.writing() as session:
        add_evaluation(session, demo, model="acme/chat-a", values=DEMO, model_type="chat")
        add_evaluation(session, demo, model="acme/chat-b", values={**DEMO, "Sums": 70.0}, model_type="chat")
        add_evaluation(session, demo, model="acme/base", values={**DEMO, "Sums": 10.0}, parameters=7 * 10**9)
    return server


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_its_window(browser: Browser, filled: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    for path in PATHS:
        page.goto(filled + path)
        assert cut_off(page) == [], path
    assert [error for error in errors if "status of 404" not in error] == []
    page.close()


def cut_off(page: Page) -> list[str]:
    """The page itself and every scrolling table in it, where it is wider than what is seen of it."""
    found: list[str] = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".scroll")]
            .filter((part) => part.scrollWidth > part.clientWidth + 1)
            .map((part) => part.getAttribute("aria-label") || part.tagName)"""
    )
    return found


def test_a_long_path_in_an_error_stays_within_a_phone(browser: Browser, filled: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{filled}/submit")
    page.fill("#model", "/" + "long" * 40)
    page.press("#model", "Enter")
    page.wait_for_selector("#model-error")
    box = page.evaluate("(({right}) => right)(document.querySelector('#model-error').getBoundingClientRect())")
    inner = page.evaluate("[document.querySelector('#model-error')].map((e) => e.scrollWidth - e.clientWidth)[0]")
    assert (box <= 390, inner <= 0) == (True, True)
    assert cut_off(page) == []
    page.close()


def test_the_form_is_used_with_the_keyboard_alone(browser: Browser, filled: str) -> None:
    page = browser.new_page()
    page.goto(f"{filled}/submit")
    page.keyboard.type("/nowhere/at/all")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "There is no folder /nowhere/at/all" in page.inner_text("#model-error")
    assert page.input_value("#model") == "/nowhere/at/all"
    page.close()


def test_on_a_phone_the_board_begins_in_the_upper_half_and_on_a_desk_no_filter_is_hidden(
    browser: Browser, filled: str
) -> None:
    seen = {}
    for width in (390, 1280):
        page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=False)
        page.goto(f"{filled}/?suite=open-llm-v2")
        box = page.locator("table.board").first.bounding_box()
        assert box is not None
        seen[width] = (page.is_visible("input[name=type]"), box["y"] < (450 if width == 390 else 700))
        if width == 390:
            page.click(".more summary")
            assert page.is_visible("input[name=type]")
        page.close()
    assert seen == {390: (False, True), 1280: (True, True)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding_of_axe(browser: Browser, filled: str, scheme: Literal["light", "dark"]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for path in PATHS:
        page.goto(filled + path)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS] == [], path
    page.close()


def test_a_reader_filters_pins_compares_and_shares_what_is_seen(browser: Browser, readable: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"{readable}/?suite=demo")
    with page.expect_navigation():
        page.check("input[name=type][value=chat]")
    assert names(page) == ["acme/chat-b", "acme/chat-a"]
    page.fill("input[name=q]", "chat-a; base")
    with page.expect_navigation():
        page.press("input[name=q]", "Enter")
    assert names(page) == ["acme/chat-a"]
    page.click("a.clear")
    page.click("thead >> text=Average")
    assert "order=down" in page.url
    for model in ("acme/chat-a", "acme/base"):
        page.click(f"[aria-label='Pin {model}']")
    shared = page.url
    other = browser.new_page()
    other.goto(shared)
    assert names(other)[:2] == ["acme/chat-a", "acme/base"]
    page.click("text=Compare them")
    assert page.locator("table.compared thead a.pin").count() == 2
    page.wait_for_selector(".picture .drawn svg")
    assert errors == []
    page.close()
    other.close()


def test_a_picture_answers_to_the_pointer_and_its_library_is_loaded_only_then(browser: Browser, readable: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    fetched: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"{readable}/?suite=demo")
    assert [url for url in fetched if "vega" in url or "pictures" in url] == []
    page.click("text=Score against parameters")
    page.wait_for_selector(".picture .drawn svg")
    page.locator(".drawn path[aria-roledescription=point]").first.hover()
    page.wait_for_selector(".vg-tooltip:visible")
    assert "model: acme/" in page.inner_text(".vg-tooltip:visible")
    assert errors == []
    page.close()


def test_everything_of_the_board_is_read_without_javascript(browser: Browser, readable: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900}, java_script_enabled=False)
    page.goto(f"{readable}/?suite=demo")
    page.click(".more summary")
    page.check("input[name=type][value=chat]")
    page.click("text=Apply")
    assert names(page) == ["acme/chat-b", "acme/chat-a"]
    page.click("text=Score over time")
    picture = page.locator("details[open].picture img")
    picture.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    assert page.request.get(readable + (picture.get_attribute("src") or "")).text().startswith("<svg")
    page.close()


def names(page: Page) -> list[str]:
    return page.locator("table.board").first.locator("tbody th .named > a:first-of-type").all_inner_texts()
