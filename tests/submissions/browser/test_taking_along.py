"""What a reader takes along: exports, an address that does not move, pictures."""

import csv
import io
import json
from datetime import timedelta

import pyarrow.parquet
from playwright.sync_api import Page, expect

from submissions.context import Hub
from tests.submissions.browser.looking import Reader, follow, names
from tests.submissions.factories import DEMO, NOON, add_evaluation

SHOWN = "/?suite=open-llm-v1&hide=off-hub&cols=model&cols=ARC&cols=average&sort=ARC&order=down"


def test_each_export_has_exactly_what_is_shown(reader: Reader) -> None:
    reader.open(SHOWN)
    shown = [[*row] for row in zip(reader.names, reader.column("ARC"), reader.column("Average"), strict=True)]
    assert len(shown) == 5
    taken: dict[str, list[list[str]]] = {}
    for form in ("CSV", "Parquet", "Markdown", "JSON"):
        address = reader.page.get_attribute(f".export >> text={form}", "href") or ""
        body = reader.page.request.get(reader.site + address).body()
        if form == "CSV":
            rows = list(csv.DictReader(io.StringIO(body.decode())))
        elif form == "Parquet":
            rows = pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
        elif form == "JSON":
            rows = [row | {"ARC": row["benchmarks"]["ARC"]["value"]} for row in json.loads(body)["ranked"]]
        else:
            lines = [
                [cell.strip() for cell in line.split("|")[1:-1]] for line in body.decode().splitlines() if "|" in line
            ]
            rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
        numbers = [[f"{float(row[name]):.2f}" for name in ("ARC", "average")] for row in rows]
        taken[form] = [[row["model"].rsplit("/", 1)[-1], *pair] for row, pair in zip(rows, numbers, strict=True)]
    assert taken == dict.fromkeys(taken, shown)


def test_the_link_to_the_board_as_it_is_now_shows_it_after_others_came(page: Page, server: str, hub: Hub) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/first", values=DEMO)
    page.goto(f"{server}/?suite=demo")
    follow(page, "text=Link to the board as it is now")
    kept = page.url
    with hub.writing() as session:
        better = {name: value + 5 for name, value in DEMO.items()}
        add_evaluation(session, hub.suites["demo"], model="acme/second", values=better, at=NOON + timedelta(hours=9))
    page.goto(kept)
    assert names(page) == ["acme/first"]
    assert "The board as it was on" in page.inner_text(".note")
    follow(page, "text=See it as it is now")
    expect(page.locator("table.board tbody tr")).to_have_count(2)
    assert names(page) == ["acme/second", "acme/first"]


def test_every_picture_is_an_image_answers_to_the_pointer_and_is_taken_as_a_file(reader: Reader) -> None:
    page, fetched = reader.page, []
    page.on("request", lambda request: fetched.append(request.url))
    for path, titles in (
        ("/?suite=demo", ["Score against parameters", "Score over time"]),
        ("/compare?suite=demo&pin=5&pin=6", ["Scores side by side"]),
    ):
        reader.open(path)
        if path.startswith("/?") and reader.has_scripts:
            assert not [url for url in fetched if "vega" in url or "pictures" in url], "loaded once it is looked at"
        for title in titles:
            picture = page.locator("details.picture", has_text=title)
            if picture.get_attribute("open") is None:
                picture.locator("summary").click()
            for form, begins in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
                address = picture.locator(f"figcaption a >> text={form}").get_attribute("href") or ""
                assert page.request.get(reader.site + address).body().startswith(begins)
            if not reader.has_scripts:
                image = picture.locator("img")
                image.scroll_into_view_if_needed()
                expect(image).to_have_js_property("complete", True)
                assert image.evaluate("image => image.naturalWidth") > 0
                continue
            picture.locator(".drawn svg").wait_for()
            marks = picture.locator(".drawn path[aria-roledescription=point], .drawn path[aria-roledescription=bar]")
            marks.first.scroll_into_view_if_needed()
            marks.first.hover(force=True)
            expect(picture.locator(".vg-tooltip")).to_contain_text("model: acme/")
            page.mouse.move(0, 0)
