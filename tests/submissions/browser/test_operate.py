"""What an operator does in a browser: look through the jobs, cancel and retry several, see what each worker does."""

import re
from datetime import UTC, datetime

from playwright.sync_api import Page

from orchestrator.lifecycle import EvaluationState
from orchestrator.program import program
from orchestrator.wire import FailureKind, Mode
from submissions.context import Hub
from tests.submissions.browser.looking import cut_off, follow
from tests.submissions.factories import add_evaluation, add_worker, disturb

SENTENCE = "The engine stopped with exit code 139 after 4 restarts in /usr/lib/python3/dist-packages/vllm/_C.abi3.so."


def fail(hub: Hub, *models: str) -> None:
    with hub.writing() as session:
        for model in models:
            failure = {"failure": FailureKind.ENGINE, "sentence": SENTENCE, "log_tail": "Segmentation fault"}
            add_evaluation(session, hub.suites["demo"], model=model, state=EvaluationState.FAILED, **failure)


def test_an_operator_chooses_several_and_retries_them_without_javascript(plain: Page, server: str, hub: Hub) -> None:
    fail(hub, "acme/a", "acme/b")
    plain.goto(f"{server}/operate?show=failed")
    follow(plain, "text=Retry the chosen")
    assert "choose at least one job first" in plain.inner_text("[role=status]")
    for number in (1, 2):
        plain.locator(f"input[name=evaluation][value='{number}']").first.check()
    follow(plain, "text=Retry the chosen")
    assert "2 evaluations were changed." in plain.inner_text("[role=status]")


def test_an_operator_retries_all_on_a_page_by_one_button_without_javascript(plain: Page, server: str, hub: Hub) -> None:
    fail(hub, "acme/a", "acme/b", "acme/c")
    plain.goto(f"{server}/operate?show=failed&failure=engine")
    follow(plain, "text=Retry all on this page")
    assert "3 evaluations were changed." in plain.inner_text("[role=status]")


def test_an_operator_goes_from_the_queue_to_a_failures_log_and_cancels_what_waits(
    page: Page, server: str, hub: Hub
) -> None:
    fail(hub, *(f"acme/model-{number}-with-a-name-that-takes-two-lines-on-a-phone" for number in range(8)))
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/waits", state=EvaluationState.RUNNING, waits=True)
    page.goto(f"{server}/queue")
    follow(page, "text=Operate")
    follow(page, ".tabs >> text=failed")
    current = page.locator(".tabs [aria-current]").bounding_box()
    assert current is not None
    assert current["x"] + current["width"] <= page.evaluate("innerWidth"), "which state is listed is seen"
    follow(page, ".chips >> text=engine")
    assert SENTENCE in page.inner_text("table.jobs")
    page.locator("input[name=evaluation][value='1']").last.check()
    assert page.locator(".moves button").first.bounding_box()["y"] >= 0, "what is chosen far down is retried from there"  # type: ignore[index]
    follow(page, "table.jobs >> text=The log >> nth=0")
    assert "Segmentation fault" in page.inner_text("pre.log >> nth=0")
    page.goto(f"{server}/operate")
    follow(page, "text=acme/waits >> nth=0")
    follow(page, "text=Cancel this evaluation")
    assert "cancelled" in page.inner_text(".lead")


def test_an_operator_sees_of_each_worker_what_it_does_and_what_keeps_it(page: Page, server: str, hub: Hub) -> None:
    with hub.writing() as session:
        running = add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING, requests=(30, 60))
        disturb(session, running.id or 0)
        now = datetime.now(UTC)
        add_worker(session, "engine-1", kind="engine", now=now)
        add_worker(session, "engine-2", kind="engine", now=now, mode=Mode.DRAINED, mode_by="ada", mode_since=now)
    page.goto(f"{server}/operate?show=running")
    doing = page.locator("section[aria-labelledby=workers] td.why").all_inner_texts()
    assert doing[0] == "idle"
    work, why, how = (line for line in doing[1].splitlines() if line)
    assert (work, why) == (f"infer of evaluation {running.id} (50 %)", "drained by an operator")
    assert re.fullmatch(rf"By ada, .+\. Resume: {re.escape(program())} worker resume engine-2", how)
    assert cut_off(page) == []
