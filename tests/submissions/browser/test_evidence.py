"""From a row to what it stands on: samples, differences, failures."""

from playwright.sync_api import Page


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


def test_a_failure_is_read_with_its_class_sentence_and_log(plain: Page, site: str) -> None:
    plain.goto(f"{site}/evaluations/2")
    assert "It failed: engine" in plain.inner_text(".alert")
    assert "xxxx" in plain.inner_text("pre.log >> nth=0")
