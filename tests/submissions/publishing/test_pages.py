"""The static board in a browser: opened as a file, searched and sorted, and whole without JavaScript."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from orchestrator.board import Standing, Table
from orchestrator.flags import flag
from orchestrator.tables.flags import FlagKind
from submissions.context import Hub
from submissions.languages import LANGUAGES
from submissions.publishing import static_pages
from tests.orchestrator.board.rows import DEMO, NOON, ask, row
from tests.submissions.browser.conftest import add_kinds
from tests.submissions.browser.looking import SIZES, cut_off, findings, follow, keep, listen
from tests.submissions.publishing.conftest import publish


def opened(browser: Browser, path: Path, *, size: str = "desk", script: bool = True, address: str = "") -> Page:
    """The page, which said nothing to the console."""
    context = browser.new_context(viewport=SIZES[size], java_script_enabled=script)  # type: ignore[arg-type]
    page = context.new_page()
    said: list[str] = []
    listen(page, said)
    page.goto(path.as_uri() + address)
    assert said == []
    return page


def names(page: Page) -> list[str]:
    return page.locator("#board tbody th > a:visible").all_inner_texts()


def serious(page: Page) -> list[tuple[str, str]]:
    """What axe finds serious, light and dark."""
    found: list[tuple[str, str]] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found += findings(page)
    return found


def test_the_board_opens_as_a_file_and_is_searched_sorted_and_linked_to(
    browser: Browser, filled: Hub, tmp_path: Path
) -> None:
    with filled.writing() as session:
        flag(session, "acme/tied", kind=FlagKind.OTHER, reason="<img src=x onerror=alert(1)>", now=NOON)
    publish(filled, tmp_path / "out")
    path = tmp_path / "out" / "demo" / "index.html"
    ranked = ["acme/first", "acme/also-tied", "acme/tied", "Org/<b>name", "folder model"]
    for size in SIZES:
        plain = opened(browser, path, size=size, script=False)
        assert names(plain) == ranked
        assert not plain.locator("#find").is_visible()
        page = opened(browser, path, size=size)
        assert names(page) == ranked
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        assert serious(page) == []
        page.get_by_label("Search").fill("tied; @type:chat")
        assert names(page) == ["acme/first", "acme/also-tied", "acme/tied"]
        page.get_by_label("without flagged ones").check()
        assert page.locator("#count").inner_text() == "2 of 5 rows"
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#count")).to_have_text("5 rows")
    page = opened(browser, path)
    page.get_by_role("button", name="Sums").click()
    assert names(page) == ranked
    page.get_by_role("button", name="Sums").click()
    assert names(page) == [*ranked[4:2:-1], *ranked[1:3], ranked[0]]
    link = page.locator("tbody a", has_text="folder model").first.get_attribute("href")
    assert link is not None
    again = opened(browser, path, address=f"?q=nothing{link}")
    assert again.locator("tr:target th > a").inner_text() == "folder model"


@pytest.mark.parametrize("scripts", [True, False], ids=["with-scripts", "without"])
def test_a_published_folder_is_read_from_a_web_server_and_from_the_disk(
    browser: Browser, filled: Hub, tmp_path: Path, scripts: bool
) -> None:
    add_kinds(filled)
    publish(filled, tmp_path / "out")
    serve = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "out"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for base in ((tmp_path / "out").as_uri(), f"http://127.0.0.1:{server.server_port}"):
            for size in SIZES:
                page = browser.new_page(viewport=SIZES[size], java_script_enabled=scripts)  # type: ignore[arg-type]
                said: list[str] = []
                listen(page, said)
                page.goto(f"{base}/index.html")
                follow(page, "main >> text=Open LLM Leaderboard v1")
                assert names(page)[0] == "zen/moe-8x7b"
                assert cut_off(page) == [], f"{base} on a {size}"
                if scripts:
                    page.get_by_label("Search").fill("@precision:float16; merged")
                    assert names(page) == ["zen/merged-7b", "acme/alpha-13b", "zen/delta-1b"]
                follow(page, "footer >> text=中文")
                assert len(names(page)) == (3 if scripts else 6)
                page.go_back()
                assert said == []
                follow(page, page.locator("tbody a >> text=results").first)
                expect(page.locator("body")).to_contain_text("task_hellaswag")
                page.go_back()
                keep(page, f"published-{base[:4]}-{'scripts' if scripts else 'plain'}-{size}")
                page.close()
        server.shutdown()


def test_the_board_is_there_in_chinese_and_the_switch_keeps_what_is_looked_for(
    browser: Browser, filled: Hub, tmp_path: Path
) -> None:
    with filled.writing() as session:
        flag(session, "acme/tied", kind=FlagKind.WRONG_TAG, reason="It is a merge.", now=NOON)
    publish(filled, tmp_path / "out")
    front = opened(browser, tmp_path / "out" / "index.html")
    front.wait_for_url("**/demo/index.html")  # there is one board alone
    for size, script in (("desk", True), ("phone", True), ("desk", False), ("phone", False)):
        page = opened(browser, tmp_path / "out" / "demo" / "index.html", size=size, script=script)
        if script:
            page.get_by_label("Search").fill("tied; @type:chat")
            if size == "desk":
                page.get_by_role("button", name="Model").click()
        follow(page, "footer >> text=中文")
        page.wait_for_url("**/demo/index.zh.html*")
        assert page.get_attribute("html", "lang") == "zh-Hans"
        assert "标签有误" in page.locator("tr", has_text="acme/tied").first.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        if script:
            assert page.locator("#count").inner_text() == "5 行中的 3 行"
            assert names(page)[0] == ("acme/also-tied" if size == "desk" else "acme/first")
            assert serious(page) == []
    assert "未参与排名（2）" in page.inner_text("main")
    follow(page, "footer >> text=English")
    page.wait_for_url("**/demo/index.html")


def test_rows_beyond_the_first_thousand_are_found_by_the_script(browser: Browser, tmp_path: Path) -> None:
    rows: list[Standing] = [
        row(number, 90 - number / 100, model=f"acme/m{number:04}</script>", parameters=number * 10**6)
        for number in range(1, static_pages.HTML_ROWS + 300)
    ]
    shown = ask(Table(DEMO, rows))
    page_bytes = static_pages.board_page(shown, results={}, others=[])
    (tmp_path / "index.html").write_bytes(page_bytes)
    plain = opened(browser, tmp_path / "index.html", script=False)
    assert plain.locator("#board tbody tr").count() == static_pages.HTML_ROWS
    page = opened(browser, tmp_path / "index.html")
    assert page.locator("#count").inner_text() == f"{len(rows)} rows"
    page.get_by_label("Search").fill("m1299")
    assert names(page) == ["acme/m1299</script>"]
    assert page.locator("#board tbody td b").first.inner_text() == "1299"
    far = opened(browser, tmp_path / "index.html", address=f"#{static_pages.anchor(rows[-1])}")
    far.wait_for_selector("tr:target")
    assert far.locator("tr:target th > a").inner_text() == "acme/m1299</script>"
    chinese = static_pages.board_page(shown, results={}, others=[], language=LANGUAGES["zh"])
    (tmp_path / "index.zh.html").write_bytes(chinese)
    page = opened(browser, tmp_path / "index.zh.html", address="?q=m1299")
    assert page.locator("#board tbody tr [data-label='类型']").inner_text() == "未知"
