"""The submission form, typed into: the live check, errors beside their fields, and what becomes of it."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.adapters import build_adapter
from tests.hub_stub import HubStub
from tests.submissions.browser.looking import cut_off, follow

LONGEST = 30_000


@pytest.fixture
def repositories(hf_hub: HubStub, tiny_model: Path, tmp_path: Path) -> HubStub:
    """A chat model, one whose template does not render, one without weights, and an adapter, on the local Hub."""
    for name in ("typed/chat", "typed/mute", "typed/empty"):
        hf_hub.add(name, Path(shutil.copytree(tiny_model, tmp_path / name)))
    hf_hub.add("typed/adapter", build_adapter(tmp_path / "typed/adapter", tiny_model, base_name="typed/chat"))
    (tmp_path / "typed/chat/chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (tmp_path / "typed/mute/chat_template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "typed/empty/model.safetensors").unlink()
    return hf_hub


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
    expect(page.locator("#model")).to_be_focused(timeout=LONGEST)
    page.keyboard.type("/nowhere/at/all")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "There is no folder /nowhere/at/all" in page.inner_text("#model-error")
    assert page.input_value("#model") == "/nowhere/at/all"
    page.close()


def test_the_form_checks_a_repository_while_it_is_typed_and_fills_in_what_it_says(
    page: Page, server: str, repositories: HubStub, errors: list[str]
) -> None:
    page.goto(f"{server}/submit?suite=demo")
    expect(page.locator("#model")).to_be_focused(timeout=LONGEST)
    page.keyboard.type("typed/chat")
    page.wait_for_selector("#findings .passed")
    assert "typed/chat would be accepted." in page.inner_text("#findings")
    prefilled = {name: page.input_value(f"#{name}") for name in ("model_type", "precision", "chat_template")}
    assert prefilled == {"model_type": "chat", "precision": "float32", "chat_template": "yes"}
    assert page.query_selector(".field .error") is None
    is_phone = page.evaluate("innerWidth") < 760
    assert page.locator("#model ~ .told").is_visible() == is_phone, "on a phone the findings are far below"

    page.fill("#model", "typed/mute")  # what is filled in is checked as well
    expect(page.locator("#chat_template-error")).to_contain_text("does not render", timeout=LONGEST)

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
    expect(page.locator("#findings")).to_contain_text("typed/adapter would be accepted.", timeout=LONGEST)
    assert page.query_selector(".field .error") is None

    page.fill("#model", "typed/nowhere")
    expect(page.locator("#model-error")).to_contain_text("typed/nowhere", timeout=LONGEST)
    repositories.status = 503
    page.fill("#model", "typed/chat")
    expect(page.locator("#model-error")).to_contain_text("in trouble", timeout=LONGEST)
    assert page.input_value("#model") == "typed/chat"
    errors[:] = [said for said in errors if "503" not in said]  # the browser tells of the status by itself


def test_what_was_filled_in_for_a_refused_model_is_taken_back_for_another(
    page: Page, server: str, repositories: HubStub, errors: list[str]
) -> None:
    page.goto(f"{server}/submit?suite=demo")
    page.fill("#limit", "-3")
    page.fill("#model", "typed/chat")
    expect(page.locator("#model_type")).to_have_value("chat", timeout=LONGEST)
    with page.expect_navigation():
        page.press("#limit", "Enter")
    assert page.input_value("#model_type") == "chat"
    page.fill("#model", "typed/empty")
    expect(page.locator("#model_type")).to_have_value("pretrained", timeout=LONGEST)
    assert page.input_value("#chat_template") == ""
    errors[:] = [said for said in errors if "422" not in said]  # the browser tells of the status by itself


def test_without_javascript_the_same_check_stands_on_the_page_and_what_was_chosen_stays(
    plain: Page, server: str, repositories: HubStub
) -> None:
    plain.goto(f"{server}/submit?suite=demo")
    plain.fill("#model", "typed/empty")
    plain.select_option("#model_type", "merge")
    follow(plain, "text=Check only")
    assert "no safetensors weights" in plain.inner_text("#model-error")
    assert "Would not be accepted." in plain.inner_text("[role=alert]")
    assert (plain.input_value("#model"), plain.input_value("#model_type")) == ("typed/empty", "merge")
    plain.fill("#model", "typed/chat")
    follow(plain, "text=Check only")
    assert "typed/chat would be accepted." in plain.inner_text("#findings")
    follow(plain, "form button.primary")
    assert plain.url.endswith("/evaluations/1")


def test_submitting_following_and_cancelling_need_no_javascript(plain: Page, server: str, model: Path) -> None:
    plain.goto(f"{server}/submit?suite=demo")
    plain.fill("#model", str(model))
    plain.fill("#limit", "2")
    follow(plain, "form button.primary")
    assert "/evaluations/1" in plain.url
    assert "queued" in plain.inner_text(".lead")
    plain.goto(f"{server}/queue")
    follow(plain, "[aria-label='Cancel evaluation 1']")
    assert "cancelled" in plain.inner_text(".lead")


def test_a_submitter_mends_all_faults_at_once_follows_the_evaluation_and_cancels_it(
    page: Page, server: str, repositories: HubStub, errors: list[str]
) -> None:
    page.goto(server)
    follow(page, "header a.button")
    expect(page.locator("#model")).to_be_focused(timeout=LONGEST)
    page.keyboard.type("typed/empty")
    page.fill("#limit", "-3")
    page.fill("#revision", "v9")
    page.keyboard.press("Enter")
    page.wait_for_selector("form > .alert")
    assert "Not submitted. 2 things to mend below" in page.inner_text("form > .alert")
    assert "no revision 'v9'" in page.inner_text("#revision-error")
    assert "at least 1" in page.inner_text("#limit-error")
    page.fill("#revision", "")
    page.fill("#limit", "2")
    page.fill("#model", "typed/chat")
    page.wait_for_selector("#findings .passed")
    assert page.locator(".alert, .field .error").count() == 0, "what was mended is no longer complained of"
    with page.expect_navigation():
        page.press("#limit", "Enter")
    assert page.url.endswith("/evaluations/1")
    assert "queued" in page.inner_text(".lead")
    errors[:] = [said for said in errors if "422" not in said]  # the browser tells of the status by itself

    page.request.post(f"{server}/evaluations/1/cancel")  # by somebody else
    expect(page.locator(".lead")).to_contain_text("cancelled", timeout=LONGEST)
    follow(page, "text=Submit it again")
    assert page.input_value("#model") == "typed/chat"
    follow(page, "form button.primary")
    assert "/evaluations/" in page.url
    page.goto(f"{server}/queue")
    follow(page, "[aria-label^='Cancel evaluation']")
    assert "cancelled" in page.inner_text(".lead")
    assert cut_off(page) == []
