"""The board's page."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, Response

from orchestrator.board import View, apply_view, read_board
from orchestrator.board.view import sort_names
from orchestrator.suites import find_suite
from orchestrator.wire import Precision
from submissions import words
from submissions.context import AHub
from submissions.pages.rendering import render
from submissions.reading import queues, suites
from submissions.records import QueueRecord
from submissions.request import ModelType

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def show_board(
    request: Request,
    hub: AHub,
    suite: Annotated[str | None, Query(max_length=100)] = None,
    sort: Annotated[str, Query(max_length=100)] = "rank",
    order: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    type: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies it
    precision: Annotated[list[str], Query()] = [],  # noqa: B006
    min: str = "",
    max: str = "",
    show: str = "",
) -> Response:
    view = View(
        sort=sort,
        descending=order == "down",
        search=q,
        types=frozenset(filter(None, type)),  # the form sends an empty choice for all
        precisions=frozenset(filter(None, precision)),
        smallest=_size(min),
        largest=_size(max),
    )
    with hub.reading() as session:
        counts = suites.count_by_suite(session)
        chosen = find_suite(hub.suites, suite or suites.suite_to_show(session, hub.suites))
        board = read_board(session, chosen)
        queue = queues.read_queue(session, policy=hub.policy)
    given = [(name, value) for name, value in request.query_params.multi_items() if value]

    def link(**changes: str | None) -> str:
        """This board with some of the choices changed; None removes one."""
        kept = [(name, value) for name, value in given if name not in changes]
        return "/?" + urlencode(kept + [(name, value) for name, value in changes.items() if value is not None])

    return render(
        "board.html",
        whole=board,
        board=apply_view(board, view),
        view=view,
        suites=hub.suites,
        counts=counts,
        link=link,
        types=[kind.value for kind in ModelType],
        precisions=[kind.value for kind in Precision],
        sorts=sort_names(board),
        smallest=min,
        largest=max,
        raw=show == "raw",
        narrowed=sum(map(bool, (view.types, view.precisions, _size(min), _size(max), show == "raw"))),
        under_way=_under_way(queue, chosen.name, anywhere=not board.ranked),
        query=urlencode(_for_api(given, chosen.name)),
    )


def _under_way(queue: QueueRecord, suite: str, *, anywhere: bool) -> str:
    """What comes for this board, else, with `anywhere`, what the workers are at meanwhile; empty for nothing."""
    here = words.under_way(
        sum(1 for row in queue.running if row.suite == suite), sum(1 for row in queue.waiting if row.suite == suite)
    )
    if here or not anywhere:
        return f"{here} for this board" if here else ""
    elsewhere = words.under_way(len(queue.running), len(queue.waiting))
    return f"{elsewhere} for other boards" if elsewhere else ""


def _size(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if 0 <= value < 1e6 else None


def _for_api(given: list[tuple[str, str]], suite: str) -> list[tuple[str, str]]:
    """The page's choices as the API's board takes them."""
    names = {"q": "search", "type": "type", "precision": "precision", "sort": "sort"}
    known = {"type": {kind.value for kind in ModelType}, "precision": {kind.value for kind in Precision}}
    found = [("suite", suite)]
    for name, value in given:
        if name in names and value in known.get(name, {value}):
            found.append((names[name], value))
        elif name in ("min", "max") and _size(value) is not None:
            found.append(("smallest" if name == "min" else "largest", str(_size(value))))
        elif name == "order" and value == "down":
            found.append(("descending", "true"))
    return found
