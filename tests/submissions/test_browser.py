"""The pages in a real browser, on a desk and on a phone: nothing is cut off, nothing is blocked, every task is done.

One server and one browser for all of it. Screenshots of every page are kept in `artifacts/pages/`.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from orchestrator import series
from orchestrator.flags import flag
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.suite_versions import add_version
from orchestrator.tables import Outcome, Rerun
from orchestrator.tables.flags import FlagKind
from orchestrator.wire import FailureKind
from submissions.context import Hub
from submissions.site import make_site
from tests.adapters import build_adapter
from tests.hub_stub import HubStub
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples, make_hub

SHOTS = Path(__file__).resolve().parents[2] / "artifacts" / "pages"
PATHS = {
    "front": "/",
    "board": "/?suite=open-llm-v2",
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
SERIOUS = ("serious", "critical")
LONG = "acme-research/an-extraordinarily-long-model-name-that-goes-on-for-a-while-v2.1"
LONGEST = 30_000
"""Milliseconds that a page is waited for."""
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no Chromium on PATH: install it (apt-get install chromium).")
        pytest.skip("PAGES NOT TESTED IN A BROWSER: there is no Chromium on PATH")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A board, a failure, something that waits, workers, samples, and rows to choose from."""
    hub = make_hub(tmp_path_factory.mktemp("browser") / "data")
    suite, demo = hub.suites["open-llm-v2"], hub.suites["demo"]
    values = {benchmark.name: 41.5 for benchmark in suite.benchmarks}
    with hub.writing() as session:
        add_evaluation(session, suite, model=LONG, values=values, chat_template=True)
        failed = {"failure": FailureKind.ENGINE, "sentence": "The engine stopped. " * 9, "log_tail": "x" * 400}
        add_evaluation(session, suite, model="acme/failed", state=EvaluationState.FAILED, **failed)
        add_evaluation(session, suite, model="acme/waits", state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, suite, model="acme/trial", values=values, limit=3)
        add_evaluation(session, demo, model="acme/chat-a", values=DEMO, model_type="chat")
        add_evaluation(session, demo, model="acme/chat-b", values={**DEMO, "Sums": 70.0}, model_type="chat")
        add_evaluation(session, demo, model="acme/base", values={**DEMO, "Sums": 10.0}, parameters=7 * 10**9)
        add_evaluation(session, demo, model="acme/chat-a", values={**DEMO, "Sums": 20.0}, revision="b" * 40)
        for evaluation, bits in ((5, "VQU="), (6, "qgo=")):  # each every second document, of 12
            strata = [{"documents": "d", "count": 12, "weight": 100.0, "bits": bits}]
            session.add(Outcome(evaluation_id=evaluation, benchmark="Letters", strata=strata))
        add_worker(session, "engine-1", kind="engine", now=NOON, device="NVIDIA H100 80GB HBM3")
        reason = "It has seen the questions of Sums."
        flag(session, "acme/base", kind=FlagKind.CONTAMINATION, reason=reason, link="https://example.org/7", now=NOON)
        for evaluation, step in ((8, 100), (5, 200)):
            series.add(session, evaluation, owner=0, name="run-7", step=step, now=NOON)
        add_version(session, demo.model_copy(update={"version": "2", "harness": "lm_eval 0.5"}), now=NOON)
        facts = {"suite": "demo", "from_version": demo.version, "to_version": "2", "state": RerunState.READY}
        session.add(Rerun(**facts, made_at=NOON))
    keep_samples(hub, 1, "IFEval", task="leaderboard_ifeval", records=[choice_sample(0) | {"target": "y" * 300}])
    for evaluation, parity in ((5, 0), (6, 1)):
        records = [choice_sample(number, right=number % 2 == parity) for number in range(12)]
        keep_samples(hub, evaluation, "Letters", task="demo_letters", records=records)
    return hub


@pytest.fixture(scope="module")
def site(shared: Hub) -> Iterator[str]:
    """Its URL."""
    running = uvicorn.Server(uvicorn.Config(make_site(shared), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def errors() -> list[str]:
    """What the browser's console said."""
    return []


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Browser, errors: list[str]) -> Iterator[Page]:
    """On a desk and on a phone; a console that says anything is a fault."""
    context = browser.new_context(viewport=SIZES[request.param])
    made = context.new_page()
    made.on("console", lambda message: errors.append(message.text))
    yield made
    context.close()
    assert errors == []


@pytest.fixture(params=SIZES)
def plain(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """Without JavaScript."""
    context = browser.new_context(viewport=SIZES[request.param], java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_every_page_fits_its_window_and_axe_finds_nothing_serious(
    browser: Browser, site: str, errors: list[str]
) -> None:
    look_at_every_page(browser, site, errors)


@pytest.mark.slow
def test_every_page_in_chinese_fits_its_window_and_axe_finds_nothing_serious(
    browser: Browser, site: str, errors: list[str]
) -> None:
    """`pytest -m slow tests/submissions/test_browser.py`: with everything that axe knows, light and dark."""
    look_at_every_page(browser, site, errors, language="zh", in_the_dark=None)


def look_at_every_page(
    browser: Browser,
    site: str,
    errors: list[str],
    *,
    language: str = "",
    in_the_dark: list[str] | None = ["color-contrast"],  # noqa: B006  # never changed
) -> None:
    """Each is opened once, looked at light and dark on a desk, then on a phone; `in_the_dark`: axe's rules there."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    suffix = f"-in-{language}" if language else ""
    context = browser.new_context(viewport=SIZES["desk"], reduced_motion="reduce")
    if language:
        context.add_cookies([{"name": "evalyard-lang", "value": language, "url": site}])
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text))
    for name, path in PATHS.items():
        if language and name.endswith("-zh"):
            continue
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZES["desk"])
        page.goto(site + path)
        assert cut_off(page) == [], path
        assert findings(page) == [], path
        page.screenshot(path=SHOTS / f"{name}{suffix}-desk.png")
        page.emulate_media(color_scheme="dark")
        assert findings(page, rules=in_the_dark) == [], f"{path} in the dark"
        page.set_viewport_size(SIZES["phone"])
        assert cut_off(page) == [], f"{path} on a phone"
        page.screenshot(path=SHOTS / f"{name}{suffix}-phone-dark.png")
    context.close()
    assert [error for error in errors if "status of 404" not in error] == []


def findings(page: Page, rules: list[str] | None = None) -> list[tuple[str, str]]:
    """What axe finds serious, with the first element that has it."""
    options = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    found = Axe().run(page, options=options).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS]


def cut_off(page: Page) -> list[str]:
    """The page itself and every table in it, where it is wider than what is seen of it; but models side by side, which
    scroll beside their names."""
    found: list[str] = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".scroll:not(:has(.compared))")]
            .filter((part) => part.scrollWidth > part.clientWidth + 1)
            .map((part) => part.getAttribute("aria-label") || part.tagName)"""
    )
    return found


def test_no_words_of_the_header_are_broken_over_two_lines_on_a_phone(browser: Browser, site: str) -> None:
    page = browser.new_page(viewport=SIZES["phone"])
    for path in ("/?lang=zh", "/?lang=en"):
        page.goto(site + path)
        heights: list[float] = page.eval_on_selector_all(
            ".top nav a:not(.button)", "links => links.map(link => link.getClientRects().length + link.offsetHeight)"
        )
        assert max(heights) < 45
    page.close()


def test_a_long_path_in_an_error_stays_within_a_phone(browser: Browser, site: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{site}/submit")
    page.fill("#model", "/" + "long" * 40)
    page.press("#model", "Enter")
    page.wait_for_selector("#model-error")
    box = page.evaluate("(({right}) => right)(document.querySelector('#model-error').getBoundingClientRect())")
    inner = page.evaluate("[document.querySelector('#model-error')].map((e) => e.scrollWidth - e.clientWidth)[0]")
    assert (box <= 390, inner <= 0) == (True, True)
    assert cut_off(page) == []
    page.close()


def test_the_form_is_used_with_the_keyboard_alone(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/submit")
    page.keyboard.type("/nowhere/at/all")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "There is no folder /nowhere/at/all" in page.inner_text("#model-error")
    assert page.input_value("#model") == "/nowhere/at/all"
    page.close()


@pytest.fixture
def repositories(hf_hub: HubStub, tiny_model: Path, tmp_path: Path) -> HubStub:
    """A chat model, one without weights, and an adapter, on the local Hub."""
    for name in ("typed/chat", "typed/empty"):
        hf_hub.add(name, Path(shutil.copytree(tiny_model, tmp_path / name)))
    hf_hub.add("typed/adapter", build_adapter(tmp_path / "typed/adapter", tiny_model, base_name="typed/chat"))
    (tmp_path / "typed/chat/chat_template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "typed/empty/model.safetensors").unlink()
    return hf_hub


def test_the_form_checks_a_repository_while_it_is_typed_and_fills_in_what_it_says(
    page: Page, server: str, repositories: HubStub, errors: list[str]
) -> None:
    page.goto(f"{server}/submit?suite=demo")
    page.keyboard.type("typed/chat")
    page.wait_for_selector("#findings .passed")
    assert "typed/chat would be accepted." in page.inner_text("#findings")
    prefilled = {name: page.input_value(f"#{name}") for name in ("model_type", "precision", "chat_template")}
    assert prefilled == {"model_type": "chat", "precision": "float32", "chat_template": "yes"}
    assert page.query_selector(".field .error") is None

    page.focus("#precision")
    page.keyboard.type("float16")  # as a person does: what a script sets is nobody's choice
    page.fill("#model", "typed/empty")
    page.wait_for_selector("#model-error")
    assert "no safetensors weights" in page.inner_text("#model-error")
    assert page.get_attribute("#model", "aria-describedby") == "model-error"
    assert page.input_value("#chat_template") == "", "what the repository before said is taken back"
    assert page.input_value("#precision") == "float16", "what was chosen stays"

    page.fill("#model", "typed/adapter")
    expect(page.locator("#weight_type")).to_have_value("adapter", timeout=LONGEST)
    assert page.input_value("#base_model") == "typed/chat"
    assert page.is_visible("#base_model")

    page.fill("#model", "typed/nowhere")
    expect(page.locator("#model-error")).to_contain_text("typed/nowhere", timeout=LONGEST)
    repositories.status = 503
    page.fill("#model", "typed/chat")
    expect(page.locator("#model-error")).to_contain_text("in trouble", timeout=LONGEST)
    assert page.input_value("#model") == "typed/chat"
    errors[:] = [said for said in errors if "503" not in said]  # the browser tells of the status by itself


def test_without_javascript_the_same_check_stands_on_the_page_and_what_was_chosen_stays(
    plain: Page, server: str, repositories: HubStub
) -> None:
    plain.goto(f"{server}/submit?suite=demo")
    plain.fill("#model", "typed/empty")
    plain.select_option("#model_type", "merge")
    plain.click("text=Check only")
    assert "no safetensors weights" in plain.inner_text("#model-error")
    assert "Would not be accepted." in plain.inner_text("[role=alert]")
    assert (plain.input_value("#model"), plain.input_value("#model_type")) == ("typed/empty", "merge")
    plain.fill("#model", "typed/chat")
    plain.click("text=Check only")
    assert "typed/chat would be accepted." in plain.inner_text("#findings")
    plain.click("form button.primary")
    assert plain.url.endswith("/evaluations/1")


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


def test_a_reader_filters_pins_compares_and_shares_what_is_seen(page: Page, site: str) -> None:
    page.goto(f"{site}/?suite=demo")
    unfold(page, ".more")
    with page.expect_navigation():
        page.check("input[name=type][value=chat]")
    assert names(page) == ["acme/chat-b", "acme/chat-a"]
    page.fill("input[name=q]", "chat-b; base")
    with page.expect_navigation():
        page.press("input[name=q]", "Enter")
    assert names(page) == ["acme/chat-b"]
    page.click("a.clear")
    page.goto(f"{site}/?suite=demo&sort=average&order=down")
    for model in ("acme/chat-b", "acme/base"):
        page.click(f"[aria-label='Pin {model}']")
    shared = page.url
    page.goto(f"{site}/suites")
    page.goto(shared)
    assert names(page)[:2] == ["acme/chat-b", "acme/base"]
    page.click("text=Compare them")
    assert page.locator("table.compared thead a.pin").count() == 2
    page.wait_for_selector(".picture .drawn svg")


def test_a_reader_chooses_columns_numbers_and_takes_exactly_that_along(page: Page, site: str) -> None:
    page.goto(f"{site}/?suite=demo&type=chat")
    unfold(page, ".view")
    with page.expect_navigation():
        page.uncheck("input[name=cols][value=Letters]")
    unfold(page, ".view")
    with page.expect_navigation():
        page.check("input[name=cols][value=precision]")
    unfold(page, ".view")
    with page.expect_navigation():
        page.select_option("select[name=avg]", "visible")
    with page.expect_download() as downloaded:
        page.click(".export >> text=CSV")
    lines = downloaded.value.path().read_text(encoding="utf-8").splitlines()
    assert "Letters" not in lines[0]
    assert [line.split(",")[1] for line in lines[1:]] == ["acme/chat-b", "acme/chat-a"]
    page.click("text=Link to the board as it is now")
    assert "at=20" in page.url
    assert names(page) == ["acme/chat-b", "acme/chat-a"]


def test_a_submitter_finds_a_row_its_evidence_and_how_it_differs_from_another(page: Page, site: str) -> None:
    page.goto(f"{site}/?suite=demo&q=chat-b")
    page.click("table.board .named a >> text=acme/chat-b")
    page.click(".evidence >> text=Samples >> nth=0")
    page.click(".tabs >> text=Wrong")
    assert page.locator("article.sample").count() == 6
    page.fill("input[name=q]", "7")
    page.press("input[name=q]", "Enter")
    page.wait_for_url("**q=7**")
    assert "judged=wrong" in page.url
    page.goto(f"{site}/diff?a=5&b=6&benchmark=Letters")
    page.click(".tabs >> text=Better in B")
    assert "1 to 5 of 6" in page.inner_text(".pager")
    page.goto(f"{site}/models/acme/chat-a")
    assert page.locator("svg.spark").count() == 4


def test_a_reader_goes_from_a_tie_to_the_samples_in_which_the_two_differ(page: Page, site: str) -> None:
    page.goto(f"{site}/?suite=demo")
    tie = page.locator("td.rank small a").first
    assert "paired over 12 documents" in (tie.get_attribute("title") or "")
    tie.click()
    page.click("main table >> text=Letters")
    assert "1 to 5 of 12" in page.inner_text(".pager")


def test_a_reader_changes_the_language_and_it_stays(page: Page, site: str) -> None:
    page.goto(f"{site}/queue")
    page.click("footer >> text=中文")
    assert page.get_attribute("html", "lang") == "zh-Hans"
    page.goto(f"{site}/?suite=demo")
    assert "平均分" in page.inner_text("main")
    page.click("footer >> text=English")
    assert "Average" in page.inner_text("main")


def test_a_failure_is_read_with_its_class_sentence_and_log(plain: Page, site: str) -> None:
    plain.goto(f"{site}/evaluations/2")
    assert "It failed: engine" in plain.inner_text(".alert")
    assert "xxxx" in plain.inner_text("pre.log >> nth=0")


def test_submitting_following_and_cancelling_need_no_javascript(plain: Page, server: str, model: Path) -> None:
    plain.goto(f"{server}/submit?suite=demo")
    plain.fill("#model", str(model))
    plain.fill("#limit", "2")
    plain.click("form button.primary")
    assert "/evaluations/1" in plain.url
    assert "queued" in plain.inner_text(".lead")
    plain.goto(f"{server}/queue")
    plain.click("[aria-label='Cancel evaluation 1']")
    assert "cancelled" in plain.inner_text(".lead")


def test_an_operator_chooses_several_and_retries_them_without_javascript(plain: Page, server: str, hub: Hub) -> None:
    with hub.writing() as session:
        for name in ("a", "b"):
            failure = {"failure": FailureKind.TIMEOUT, "sentence": "It took too long."}
            add_evaluation(session, hub.suites["demo"], model=f"acme/{name}", state=EvaluationState.FAILED, **failure)
    plain.goto(f"{server}/operate?show=failed")
    for number in (1, 2):
        plain.locator(f"input[name=evaluation][value='{number}']").first.check()
    plain.click("text=Retry the chosen")
    assert "2 evaluations were changed." in plain.inner_text("[role=status]")


def test_a_picture_answers_to_the_pointer_and_its_library_is_loaded_only_then(browser: Browser, site: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    fetched: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"{site}/?suite=demo")
    assert [url for url in fetched if "vega" in url or "pictures" in url] == []
    page.click("text=Score against parameters")
    page.wait_for_selector(".picture .drawn svg")
    page.locator(".drawn path[aria-roledescription=point]").first.hover()
    page.wait_for_selector(".vg-tooltip:visible")
    assert "model: acme/" in page.inner_text(".vg-tooltip:visible")
    assert errors == []
    page.close()


def test_everything_of_the_board_is_read_without_javascript(plain: Page, site: str) -> None:
    plain.goto(f"{site}/?suite=demo")
    unfold(plain, ".more")
    plain.check("input[name=type][value=chat]")
    plain.click("text=Apply")
    assert names(plain) == ["acme/chat-b", "acme/chat-a"]
    plain.click("text=Score over time")
    picture = plain.locator("details[open].picture img")
    picture.scroll_into_view_if_needed()
    plain.wait_for_load_state("networkidle")
    assert plain.request.get(site + (picture.get_attribute("src") or "")).text().startswith("<svg")
    for model in ("acme/chat-b", "acme/chat-a"):
        plain.click(f"[aria-label='Pin {model}']")
    plain.click("text=Compare them")
    assert plain.locator("table.compared thead a.pin").count() == 2
    plain.click("table.compared tbody >> text=sample by sample >> nth=0")
    plain.click("main table >> text=Letters")
    assert "McNemar" in plain.inner_text("main")


def test_a_flag_is_read_with_its_reason_followed_to_its_discussion_and_left_out(plain: Page, site: str) -> None:
    plain.goto(f"{site}/?suite=demo")
    badge = plain.locator("table.board a.badge.flag")
    assert badge.inner_text().split(":")[0].strip() == "⚑ contamination"
    assert badge.get_attribute("title") == "It has seen the questions of Sums."
    assert badge.get_attribute("href") == "https://example.org/7"
    unfold(plain, ".more")
    plain.check("input[name=hide][value=flagged]")
    plain.click("text=Apply")
    assert "acme/base" not in names(plain)
    plain.goto(f"{site}/?suite=demo&q=@flag:contamination")
    assert names(plain) == ["acme/base"]
    plain.click("table.board .named a >> text=acme/base")
    assert "Flagged, contamination: It has seen the questions of Sums." in plain.inner_text("#flags")
    plain.goto(f"{site}/models/acme/base")
    assert plain.get_attribute("#flags a >> text=Discussion", "href") == "https://example.org/7"


def names(page: Page) -> list[str]:
    return page.locator("table.board").first.locator("tbody th .named > a:first-of-type").all_inner_texts()


def unfold(page: Page, part: str) -> None:
    """What is folded on a phone lies open on a desk, or is folded on both."""
    summary = page.locator(f"{part} > summary")
    if summary.is_visible() and page.get_attribute(part, "open") is None:
        summary.click()
