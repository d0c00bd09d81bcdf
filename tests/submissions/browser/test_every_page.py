"""Every page on a desk and on a phone, light and dark: nothing is cut off, and axe finds nothing serious."""

import pytest
from playwright.sync_api import Browser

from tests.submissions.browser.looking import SIZES, cut_off, findings, keep, listen

PATHS = {
    "front": "/",
    "board": "/?suite=open-llm-v2",
    "board-kinds": "/?suite=open-llm-v1&pin=12",
    "board-zh": "/?suite=open-llm-v2&lang=zh",
    "submit-zh": "/submit",
    "submit": "/submit?lang=en",
    "queue": "/queue",
    "operate": "/operate",
    "operate-failed": "/operate?show=failed",
    "suites": "/suites",
    "suite": "/suites/open-llm-v2",
    "evaluation": "/evaluations/1",
    "evaluation-failed": "/evaluations/2",
    "evaluation-waits": "/evaluations/3",
    "samples": "/evaluations/1/samples/IFEval",
    "diff": "/diff?a=5&b=6&benchmark=Letters",
    "diff-choices": "/diff?a=5&b=6",
    "board-ties": "/?suite=demo",
    "api": "/api/v1/docs",
    "compare": "/compare?suite=demo&pin=5&pin=6",
    "model": "/models/acme/failed",
    "model-history": "/models/acme/chat-a",
    "reruns": "/reruns",
    "account": "/account",
    "nowhere": "/nowhere",
    "series": "/series/run-7",
    "canary": "/canary",
    "rerun": "/reruns/1",
    "rerun-report": "/reruns/1/report",
}


def test_every_page_fits_its_window_and_axe_finds_nothing_serious(browser: Browser, site: str) -> None:
    look_at_every_page(browser, site)


@pytest.mark.slow
def test_every_page_in_chinese_fits_its_window_and_axe_finds_nothing_serious(browser: Browser, site: str) -> None:
    """`pytest -m slow tests/submissions/browser`: with everything that axe knows, light and dark."""
    look_at_every_page(browser, site, language="zh", in_the_dark=())


def look_at_every_page(
    browser: Browser, site: str, *, language: str = "", in_the_dark: tuple[str, ...] = ("color-contrast",)
) -> None:
    """Each is opened once, looked at light and dark on a desk, then on a phone; `in_the_dark`: axe's rules there."""
    said: list[str] = []
    suffix = f"-in-{language}" if language else ""
    context = browser.new_context(viewport=SIZES["desk"], reduced_motion="reduce")
    if language:
        context.add_cookies([{"name": "evalyard-lang", "value": language, "url": site}])
    page = context.new_page()
    listen(page, said)
    for name, path in PATHS.items():
        if language and name.endswith("-zh"):
            continue
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZES["desk"])
        page.goto(site + path)
        assert cut_off(page) == [], path
        assert findings(page) == [], path
        keep(page, f"{name}{suffix}-desk")
        page.emulate_media(color_scheme="dark")
        assert findings(page, *in_the_dark) == [], f"{path} in the dark"
        page.set_viewport_size(SIZES["phone"])
        assert cut_off(page) == [], f"{path} on a phone"
        keep(page, f"{name}{suffix}-phone-dark")
    context.close()
    assert [error for error in said if "status of 404" not in error] == []


def test_no_words_of_the_header_are_broken_over_two_lines_on_a_phone(browser: Browser, site: str) -> None:
    page = browser.new_page(viewport=SIZES["phone"])
    for path in ("/?lang=zh", "/?lang=en"):
        page.goto(site + path)
        heights: list[float] = page.eval_on_selector_all(
            ".top nav a:not(.button)", "links => links.map(link => link.getClientRects().length + link.offsetHeight)"
        )
        assert max(heights) < 45
    page.close()


def test_on_a_phone_the_board_begins_in_the_upper_half_and_on_a_desk_no_filter_is_hidden(
    browser: Browser, site: str
) -> None:
    seen = {}
    for width in (390, 1280):
        page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=False)
        page.goto(f"{site}/?suite=open-llm-v2")
        box = page.locator("table.board").first.bounding_box()
        assert box is not None
        seen[width] = (page.is_visible("input[name=type]"), box["y"] < (450 if width == 390 else 700))
        if width == 390:
            page.click(".more summary")
            assert page.is_visible("input[name=type]")
        page.close()
    assert seen == {390: (False, True), 1280: (True, True)}
