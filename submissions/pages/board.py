"""The board's page, and the page that lays pinned rows side by side."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from orchestrator.board import BoardRequest, Shown
from orchestrator.board.request import MOST_PINNED, PAGE_ROWS, SIZES, Addresses
from orchestrator.board.view import APART_ROWS
from submissions.context import AHub
from submissions.pages.rendering import render
from submissions.reading import boards

HIDING = {
    "merged": "merged",
    "moe": "mixtures of experts",
    "flagged": "flagged",
    "off-hub": "not on the Hub",
    "imported": "imported",
}

PATIENCE_SECONDS = 1.5
"""After so long without a board a reader is told that it is being read, on a page that asks again by itself."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def show_board(request: Request, hub: AHub, apart: str = "") -> Response:
    asked, ignored = BoardRequest.parse_kindly(request.query_params.multi_items())
    with hub.reading() as session:
        shown = boards.read_shown(
            hub,
            session,
            asked,
            page_rows=PAGE_ROWS,
            apart_rows=None if apart == "all" else APART_ROWS,
            patience=PATIENCE_SECONDS,
        )
        return render(
            "board.html",
            counts=boards.counts(hub, session),
            suites=hub.suites,
            versions=boards.versions(hub, session, shown.suite),
            under_way=boards.under_way(hub, session, shown.suite.name, anywhere=not shown.ranked),
            ignored=ignored,
            **_facts(shown),
        )


@router.get("/compare")
def compare(request: Request, hub: AHub) -> Response:
    asked, _ = BoardRequest.parse_kindly(request.query_params.multi_items())
    with hub.reading() as session:
        shown = boards.read_shown(hub, session, asked, page_rows=1, patience=PATIENCE_SECONDS)
    boards.pinned_or_refuse(shown)
    return render("compare.html", **_facts(shown))


def _facts(shown: Shown) -> dict[str, Any]:
    asked = shown.request
    pinned = tuple(line.row.evaluation for line in shown.pinned)

    addresses = Addresses(asked)
    this_page = "/?" + addresses.query(pin=pinned, page=asked.page)

    def link(**changes: Any) -> str:
        """This board with some of the choices changed; None takes one away."""
        return "/?" + addresses.query(**changes)

    def pin_link(evaluation: int) -> str | None:
        """This board with the row pinned, or no longer; None when no more fit."""
        if evaluation in pinned:
            return link(pin=tuple(one for one in pinned if one != evaluation), page=asked.page)
        return f"{this_page}&pin={evaluation}" if len(pinned) < MOST_PINNED else None

    def leftwards(key: str) -> str:
        """This board with the column one place further left."""
        keys = [column.key for column in shown.columns]
        place = keys.index(key)
        keys.insert(max(0, place - 1), keys.pop(place))
        return link(cols=tuple(keys), page=asked.page)

    return {
        "shown": shown,
        "suite": shown.suite,
        "asked": asked,
        "link": link,
        "pin_link": pin_link,
        "leftwards": leftwards,
        "sizes": SIZES,
        "hiding": HIDING,
        "usual_rows": PAGE_ROWS,
        "chosen": {column.key for column in shown.columns},
        "api": lambda **changes: addresses.query(**changes, page=1, rows=0),
        "here": "Board",
    }
