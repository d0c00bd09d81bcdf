"""What a reader does with a board: choose, compare, share, take along."""

from playwright.sync_api import Browser, Page

from tests.submissions.browser.looking import names, unfold


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


def test_a_reader_changes_the_language_and_it_stays(page: Page, site: str) -> None:
    page.goto(f"{site}/queue")
    page.click("footer >> text=中文")
    assert page.get_attribute("html", "lang") == "zh-Hans"
    page.goto(f"{site}/?suite=demo")
    assert "平均分" in page.inner_text("main")
    page.click("footer >> text=English")
    assert "Average" in page.inner_text("main")


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
