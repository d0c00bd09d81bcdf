"""The pages in a real browser, on a desk and on a phone: nothing is cut off, nothing is blocked."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind
from submissions.context import Hub
from tests.submissions.factories import NOON, add_evaluation, add_worker, choice_sample, keep_samples

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
    "/nowhere",
)
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


def test_on_a_phone_the_board_begins_soon_and_on_a_desk_no_filter_is_hidden(browser: Browser, filled: str) -> None:
    seen = {}
    for width in (390, 1280):
        page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=False)
        page.goto(f"{filled}/?suite=open-llm-v2")
        box = page.locator("table.board").first.bounding_box()
        assert box is not None
        seen[width] = (page.is_visible("select[name=type]"), box["y"] < 900)
        if width == 390:
            page.click(".more summary")
            assert page.is_visible("select[name=type]")
        page.close()
    assert seen == {390: (False, True), 1280: (True, True)}
