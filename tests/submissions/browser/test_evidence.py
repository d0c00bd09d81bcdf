"""From a row to what it stands on: provenance, samples, differences, history, failures."""

from tests.submissions.browser.looking import Reader, cut_off, follow


def test_a_reader_goes_from_a_row_to_how_each_number_was_made(reader: Reader) -> None:
    reader.open("/?suite=demo&q=chat-b")
    page = reader.page
    follow(page, "table.board .named a >> text=acme/chat-b")
    assert "70.00" in page.inner_text(".big")
    scores = page.locator("section[aria-labelledby=scores]").inner_text()
    assert all(part in scores for part in ("Letters", "80.00", "1.00", "84.00", "100"))
    follow(page, ".evidence >> text=Provenance >> nth=0")
    how = page.locator("#how-Letters")
    if how.get_attribute("open") is None:
        how.locator("summary").click()
    told = how.inner_text()
    assert all(part in told for part in ("task_letters", "acc", "0.8000", "0123456789abcdef", "0.32.0+cpu", "fewshot"))
    assert "evalyard reproduce 6" in page.inner_text("section[aria-labelledby=again]")
    assert "lm_eval" in page.inner_text("section[aria-labelledby=again] pre")
    assert cut_off(page) == []


def test_a_reader_browses_samples_by_judgement_and_by_what_they_hold(reader: Reader) -> None:
    reader.open("/evaluations/6")
    page = reader.page
    follow(page, ".evidence >> text=Samples >> nth=0")
    first = page.locator("article.sample").first
    assert "which of these is a fruit?" in first.inner_text()
    assert "B target\t-5.2000" in first.locator(".choices").inner_text()
    assert first.locator("header .badge").inner_text() == "wrong"
    assert first.locator(".choices .badge").all_inner_texts() == ["target", "chosen"]
    first.locator("details summary").last.click()
    assert '"doc_id": 0' in first.inner_text()
    follow(page, ".tabs >> text=Right")
    assert set(page.locator("article.sample header .badge").all_inner_texts()) == {"right"}
    follow(page, ".tabs >> text=Wrong")
    assert page.locator("article.sample h2").all_inner_texts() == [f"Document {number}" for number in range(0, 12, 2)]
    page.fill("input[name=q]", "question 8")
    with page.expect_navigation():
        page.press("input[name=q]", "Enter")
    assert page.locator("article.sample h2").all_inner_texts() == ["Document 8"]
    assert "judged=wrong" in page.url
    follow(page, "text=Clear")
    assert page.locator("article.sample").count() == 6


def test_samples_that_a_suite_keeps_confidential_are_offered_to_nobody(reader: Reader) -> None:
    reader.open("/evaluations/1")
    assert reader.page.locator("#IFEval .evidence >> text=Samples").count() == 1
    assert reader.page.locator("#GPQA .evidence >> text=Samples").count() == 0
    answer = reader.page.request.get(f"{reader.site}/evaluations/1/samples/GPQA")
    assert (answer.status, "keeps this dataset confidential" in answer.text()) == (404, True)


def test_a_reader_goes_from_a_tie_or_a_comparison_to_the_samples_in_which_two_differ(reader: Reader) -> None:
    reader.open("/?suite=demo")
    page = reader.page
    tie = page.locator("td.rank small a").first
    assert "paired over 12 documents" in (tie.get_attribute("title") or "")
    follow(page, tie)
    follow(page, "main table >> text=Letters")
    assert "1 to 5 of 12" in page.inner_text(".pager")
    reader.open("/compare?suite=demo&pin=5&pin=6")
    follow(page, "table.compared tbody >> text=sample by sample >> nth=0")
    follow(page, "main table >> text=Letters")
    assert "McNemar" in page.inner_text("main")
    assert "0, 6, 6, 0" in page.inner_text("main"), "right in both, only A, only B, neither"
    follow(page, ".tabs >> text=Better in B")
    assert "1 to 5 of 6" in page.inner_text(".pager")
    assert page.locator("article.sample").first.locator("header .badge").all_inner_texts() == ["wrong", "right"]
    follow(page, "a[rel=next]")
    assert "6 to 6 of 6" in page.inner_text(".pager")
    assert cut_off(page) == []


def test_a_models_page_has_all_its_revisions_with_their_history(reader: Reader) -> None:
    reader.open("/evaluations/5")
    page = reader.page
    follow(page, "text=all of this model")
    rows = page.locator("table tbody tr")
    assert rows.count() == 2
    assert page.locator("tbody th code").all_inner_texts()[0] == "bbbbbbb"
    assert page.locator("tbody td.average").all_inner_texts() == ["53.33", "60.00"]
    assert "±1.00" in rows.first.inner_text()
    assert page.locator("svg.spark").count() == 4
    follow(page, rows.first.locator("a.score").first)
    assert page.url.endswith("/evaluations/8#Letters")


def test_a_reader_sees_what_a_chat_template_and_another_revision_changed_sample_by_sample(reader: Reader) -> None:
    reader.open("/models/acme/chat-a")
    page = reader.page
    assert page.locator("select[name=a]").input_value() == "5"
    assert cut_off(page) == []
    assert "bbbbbbb · bfloat16 · chat template" in page.locator("select[name=b] >> option:checked").inner_text()
    follow(page, "text=Compare sample by sample")
    follow(page, "main table >> text=Letters")
    differs = page.locator("dl.facts").first.inner_text()
    assert "Chat template" in differs
    assert "Revision" in differs
    follow(page, ".tabs >> text=Asked otherwise")
    assert "1 to 5 of 12" in page.inner_text(".pager")
    assert page.locator("article.sample mark").all_inner_texts()[1].startswith("<|user|>")
    assert cut_off(page) == []


def test_a_failure_is_read_with_its_class_sentence_and_log(reader: Reader) -> None:
    reader.open("/queue")
    follow(reader.page, "text=acme/failed >> nth=0")
    assert "It failed: engine" in reader.page.inner_text(".alert")
    assert "The engine stopped." in reader.page.inner_text(".alert")
    assert "xxxx" in reader.page.inner_text("pre.log >> nth=0")
