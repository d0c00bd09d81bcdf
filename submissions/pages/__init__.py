"""The pages: board, form, evaluation, samples, queue, suites. Rendered here, readable without JavaScript.

They show the API's own records and add nothing to them. Everything that came from a stranger is escaped.
"""

from fastapi import APIRouter

from submissions.pages import board, diff, evaluation, form, lists, rerun_report, samples

router = APIRouter()
for part in (board, form, evaluation, samples, diff, rerun_report, lists):
    router.include_router(part.router)
