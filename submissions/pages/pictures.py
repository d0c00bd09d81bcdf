"""Pictures of the board by address: SVG and PNG for everybody, and the same for the browser's charting library."""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from orchestrator.board import BoardRequest
from orchestrator.board.pictures import Kind, draw
from submissions.context import AHub
from submissions.drawing import Form, picture
from submissions.reading import boards

MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png", "json": "application/json"}
SVG_ALONE = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""An SVG that is opened by itself runs and loads nothing."""

router = APIRouter(include_in_schema=False)


@router.get("/pictures/{kind}.{form}")
def show_picture(
    kind: Kind, form: Form, request: Request, hub: AHub, theme: Literal["", "light", "dark"] = ""
) -> Response:
    """Of exactly the rows that the board shows with the same choices, on all pages."""
    asked, _ = BoardRequest.parse_kindly(request.query_params.multi_items())
    with hub.reading() as session:
        shown = boards.read_shown(hub, session, asked.model_copy(update={"page": 1, "rows": 0}), apart_rows=0)
    if kind == "compare":
        boards.pinned_or_refuse(shown)
    body = picture(draw(shown, kind, dark=theme == "dark"), form)
    return Response(body, media_type=MEDIA_TYPES[form], headers=SVG_ALONE if form == "svg" else {})
