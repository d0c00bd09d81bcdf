"""What a reader does with a board: filter, search, choose columns and numbers, pin and compare, share."""

from playwright.sync_api import Browser, Page

from tests.submissions.browser.looking import SIZES, Reader, cut_off, follow, names, unfold

KINDS = "/?suite=open-llm-v1"
RANKED = ["moe-8x7b", "merged-7b", "alpha-13b", "alpha-7b", "delta-1b", "tiny"]


def count(page: Page, choice: str) -> int:
    """How many rows the chip says that it leaves."""
    unfold(page, ".more")
    return int(page.locator(f".more .chip:has({choice}) .count").inner_text())


def test_a_reader_filters_by_kind_and_each_count_says_what_is_left(reader: Reader) -> None:
    reader.open(KINDS)
    assert reader.names == RANKED
    page = reader.page
    assert [count(page, f"[value={kind}]") for kind in ("chat", "float16", "merged", "moe", "off-hub", "official")] == [
        1, 2, 1, 1, 1, 2,
    ]  # fmt: skip
    reader.choose(".more", lambda page: page.check("[name=precision][value=float16]"))
    assert reader.names == ["alpha-13b", "delta-1b"]
    assert count(page, "[value=fine-tuned]") == 1
    reader.choose(".more", lambda page: page.check("[name=only]"))
    assert reader.names == ["alpha-13b"]
    follow(page, "a.clear")
    for kind in ("merged", "moe", "off-hub"):
        reader.choose(".more", lambda page, kind=kind: page.check(f"[name=hide][value={kind}]"))  # type: ignore[misc]
    assert reader.names == ["alpha-13b", "alpha-7b", "delta-1b"]
    if reader.has_scripts:
        assert page.url == reader.site + KINDS + "&hide=merged&hide=moe&hide=off-hub"
    assert cut_off(page) == []


def test_a_reader_takes_a_ready_made_size_or_a_range(reader: Reader) -> None:
    reader.open(KINDS)
    page = reader.page
    unfold(page, ".more")
    follow(page, ".chip >> text=Mid-range")
    assert reader.names == ["moe-8x7b", "merged-7b", "alpha-13b", "alpha-7b"]
    unfold(page, ".more")
    follow(page, ".chip >> text=Mid-range")
    assert reader.names == RANKED
    unfold(page, ".more")
    page.fill("[name=min]", "0.9")
    page.fill("[name=max]", "7,5")
    with page.expect_navigation():
        page.press("[name=max]", "Enter")
    assert reader.names == ["merged-7b", "alpha-7b", "delta-1b"]


def test_a_reader_searches_with_or_with_fields_and_with_expressions(reader: Reader) -> None:
    reader.open(KINDS)
    found = reader.look_for("moe; @type:merge; @licence:mit @precision:float16")
    assert found == ["moe-8x7b", "merged-7b", "delta-1b"]
    assert reader.look_for("^zen/.*-\\d+b$") == ["merged-7b", "delta-1b"]
    assert reader.look_for("nobody") == []
    assert "6 ranked evaluations are left out." in reader.page.inner_text(".empty")
    assert reader.look_for("alpha(") == []
    assert "no regular expression that can be used" in reader.page.inner_text(".note")
    assert reader.look_for("@maker:acme alpha") == ["alpha-13b", "alpha-7b"]
    assert "There is no field @maker" in reader.page.inner_text(".note")
    follow(reader.page, "a.clear")
    assert reader.names == RANKED


def test_a_reader_chooses_columns_their_order_and_every_one_there_is(reader: Reader) -> None:
    reader.open(KINDS)
    reader.choose(".view", lambda page: page.uncheck("[name=cols][value=GSM8K]"))
    reader.choose(".view", lambda page: page.check("[name=cols][value=active]"))
    page = reader.page
    unfold(page, ".view")
    follow(page, "[title='Move Active left']")
    head = [text.strip() for text in page.locator("table.board thead th").all_text_contents()]
    assert head[-3:] == ["Size", "Active", "Scored"]
    assert "GSM8K" not in head
    assert reader.column("Active")[:2] == ["13", "7"]
    unfold(page, ".view")
    known = page.locator("[name=cols]").evaluate_all("boxes => boxes.map(box => box.value)")
    page.goto(f"{page.url}&" + "&".join(f"cols={key}" for key in known))
    shown = set(page.locator("table.board thead th").all_text_contents())
    assert {"Places", "Type", "Average", "ARC", "Precision", "Architecture", "Base model", "Licence"} <= shown
    assert {"Chat template", "GPU-hours", "CO₂ (kg)", "Tokens/s", "Suite", "Submitted", "Scored", "Flags"} <= shown
    assert cut_off(page) == [] or not reader.is_phone, "on a phone each row is a card"
    unfold(page, ".view")
    follow(page, "text=The usual ones")
    assert "GSM8K" in page.inner_text("table.board thead") or reader.is_phone
    assert "cols=" not in page.url


def test_a_reader_averages_what_is_shown_ranks_what_fits_and_reads_raw_numbers(reader: Reader) -> None:
    reader.open(f"{KINDS}&cols=rank&cols=model&cols=average&cols=ARC&type=merge&type=unknown")
    assert (reader.names[0], reader.column("Average")[0]) == ("moe-8x7b", "65.00")
    reader.choose(".view", lambda page: page.select_option("[name=avg]", "visible"))
    assert dict(zip(reader.names, reader.column("Average"), strict=True))["moe-8x7b"] == "15.00"
    reader.choose(".view", lambda page: page.select_option("[name=show]", "raw"))
    assert dict(zip(reader.names, reader.column("ARC"), strict=True))["moe-8x7b"] == "32.00"
    reader.open(f"{KINDS}&type=chat")
    assert reader.page.locator("td.rank .place").inner_text() == "4"
    reader.choose(".view", lambda page: page.select_option("[name=rank]", "dynamic"))
    assert reader.page.locator("td.rank .place").inner_text() == "1"
    assert reader.page.locator(".bar .interval").count() > 0


def test_a_reader_sorts_by_a_column_and_back(reader: Reader) -> None:
    def sort(column: str) -> None:
        if reader.is_phone:  # rows are cards without a head
            reader.page.click("summary:has-text('Sort by')")
            follow(reader.page, f".narrow a:has-text('{column}')")
        else:
            follow(reader.page, f"thead >> text={column}")

    reader.open(KINDS)
    by_rank = reader.names
    sort("ARC")
    assert reader.names == ["merged-7b", "alpha-13b", "alpha-7b", "delta-1b", "tiny", "moe-8x7b"]
    assert reader.page.get_attribute("th[aria-sort]", "aria-sort") == "descending"
    sort("rank" if reader.is_phone else "#")
    assert reader.names == by_rank


def test_a_reader_pins_four_compares_them_and_whoever_gets_the_address_sees_the_same(
    reader: Reader, browser: Browser
) -> None:
    reader.open(f"{KINDS}&hide=off-hub&sort=parameters")
    page = reader.page
    for name in ("zen/delta-1b", "acme/alpha-7b", "zen/moe-8x7b", "zen/merged-7b"):
        follow(page, f"[aria-label='Pin {name}']")
    pinned = ["delta-1b", "alpha-7b", "moe-8x7b", "merged-7b"]
    assert reader.names[:4] == pinned
    assert "4 pinned of at most 4." in page.inner_text(".pins")
    assert page.locator("[aria-label^='Pin ']").count() == 0
    other = browser.new_page(viewport=SIZES["desk"])
    other.goto(page.url)
    assert [name.rsplit("/", 1)[-1] for name in names(other)] == reader.names
    other.close()
    follow(page, "text=Compare them")
    heads = page.locator("table.compared thead .named > a:first-of-type").all_inner_texts()
    assert [name.rsplit("/", 1)[-1] for name in heads] == pinned
    follow(page, "[aria-label='Take zen/moe-8x7b away']")
    assert page.locator("table.compared thead a.pin").count() == 3
    follow(page, ".crumbs a")
    assert reader.names[:3] == ["delta-1b", "alpha-7b", "merged-7b"]


def test_a_flag_is_read_with_its_reason_followed_to_its_discussion_and_left_out(reader: Reader) -> None:
    reader.open("/?suite=demo")
    page = reader.page
    badge = page.locator("table.board a.badge.flag")
    assert badge.inner_text().split(":")[0].strip() == "⚑ contamination"
    assert badge.get_attribute("title") == "It has seen the questions of Sums."
    assert badge.get_attribute("href") == "https://example.org/7"
    reader.choose(".more", lambda page: page.check("[name=hide][value=flagged]"))
    assert "base" not in reader.names
    reader.open("/?suite=demo&q=@flag:contamination")
    assert reader.names == ["base"]
    follow(page, "table.board .named a >> text=acme/base")
    assert "Flagged, contamination: It has seen the questions of Sums." in page.inner_text("#flags")
    reader.open("/models/acme/base")
    assert page.get_attribute("#flags a >> text=Discussion", "href") == "https://example.org/7"


def test_a_reader_changes_the_language_and_it_stays(reader: Reader) -> None:
    reader.open("/queue")
    follow(reader.page, "footer >> text=中文")
    assert reader.page.get_attribute("html", "lang") == "zh-Hans"
    reader.open("/?suite=demo")
    assert "平均分" in reader.page.inner_text("main")
    follow(reader.page, "footer >> text=English")
    assert "Average" in reader.page.inner_text("main")


def test_the_page_is_as_light_or_dark_as_the_reader_has_it(reader: Reader) -> None:
    seen = []
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        reader.open(KINDS)
        colours = reader.page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        seen.append([sum(map(int, colour.strip("rgba()").split(",")[:3])) for colour in colours])
    (light_ink, light_ground), (dark_ink, dark_ground) = seen
    assert light_ink < 200 < 600 < light_ground
    assert dark_ground < 200 < 500 < dark_ink


def test_a_board_is_used_with_the_keyboard_alone(reader: Reader) -> None:
    reader.open(KINDS)
    page = reader.page

    def go_to(selector: str, key: str = "Tab") -> None:
        for _ in range(150):
            page.keyboard.press(key)
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} is not reached")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    go_to("[name=q]")
    page.keyboard.type("alpha")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert reader.names == ["alpha-13b", "alpha-7b"]
    go_to("[aria-label='Pin acme/alpha-7b']")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "where one is, is seen"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert reader.names[0] == "alpha-7b"
    go_to(".picture summary")
    page.keyboard.press("Enter")
    assert page.get_attribute(".picture >> nth=0", "open") is not None
