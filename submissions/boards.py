"""The API's view of the board: exactly what the page shows, as JSON, CSV, Markdown or Parquet."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from orchestrator.board import BoardRequest
from orchestrator.board.export import as_csv, as_markdown, as_parquet, as_records
from orchestrator.errors import Refused
from submissions.api import FOUND, VERSION
from submissions.context import AHub
from submissions.reading import boards
from submissions.request import ModelType, none_of

router = APIRouter(prefix=f"/api/{VERSION}")
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind.partition(";")[0]: {} for kind in MEDIA_TYPES.values()}}
}
ENDINGS = {"csv": "csv", "markdown": "md", "parquet": "parquet"}


class BoardQuery(BoardRequest):
    """A board's request with the form of the answer."""

    format: Literal["json", "csv", "markdown", "parquet"] = "json"


@router.get("/board", responses=FOUND | FORMS, summary="The board of a suite, as JSON, CSV, Markdown or Parquet")
def read_standings(request: Request, hub: AHub, query: Annotated[BoardQuery, Query()]) -> Response:
    """Exactly what the page shows with the same choices, but all rows unless `rows` names how many make a page.

    Without chosen columns the exports have every column.
    """
    format = query.format
    try:
        asked = BoardRequest.parse(request.query_params.multi_items())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    for unknown in set(asked.type) - {kind.value for kind in ModelType}:
        raise Refused(none_of(unknown, [kind.value for kind in ModelType]))
    with hub.reading() as session:
        shown = boards.read_shown(hub, session, asked, everything=True)
        versions = boards.versions(hub, session, shown.suite) if format == "json" else []
    if format == "json":
        return JSONResponse(as_records(shown) | {"versions": [one.model_dump(mode="json") for one in versions]})
    body = {"csv": as_csv, "markdown": as_markdown, "parquet": as_parquet}[format](shown)
    disposition = f'attachment; filename="board-{shown.suite.name}.{ENDINGS[format]}"'
    return Response(body, media_type=MEDIA_TYPES[format], headers={"content-disposition": disposition})
