"""What an operator does in a browser."""

from playwright.sync_api import Page

from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind
from submissions.context import Hub
from tests.submissions.factories import add_evaluation


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
