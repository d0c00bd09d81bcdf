"""What a form of this site sent: names and values in their order. Reads; decides nothing."""

from urllib.parse import parse_qsl

from fastapi import Request

from orchestrator.errors import Refused


async def read_fields(request: Request, *, most: int, otherwise: str) -> list[tuple[str, str]]:
    """The fields of the body that are not empty; a name may come several times.

    Raises:
        Refused: there are more than `most` of them; `otherwise` is the sentence that says what to do instead.
    """
    body = (await request.body()).decode("utf-8", errors="replace")
    try:
        return parse_qsl(body, max_num_fields=most)
    except ValueError as error:
        raise Refused(otherwise) from error
