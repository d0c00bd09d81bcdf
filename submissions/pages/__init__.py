"""The pages: board, form, evaluation, samples, queue, suites. Rendered here, readable without JavaScript.

They show the API's own records and add nothing to them. Everything that came from a stranger is escaped.
"""

from fastapi import APIRouter

from submissions.pages import board, evaluation, form, lists, samples

router = APIRouter()
for part in (board, form, evaluation, samples, lists):
    router.include_router(part.router)
