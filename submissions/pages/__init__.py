"""The pages: board, form, evaluation, samples, queue, suites. Rendered here, readable without JavaScript.

They show the API's own records and add nothing to them. Everything that came from a stranger is escaped.
"""

from fastapi import APIRouter

from submissions.pages import (
    account,
    board,
    canary,
    diff,
    evaluation,
    form,
    lists,
    model,
    operate,
    pictures,
    rerun_report,
    reruns,
    samples,
    series,
)

router = APIRouter()
for part in (
    account,
    board,
    pictures,
    model,
    operate,
    form,
    evaluation,
    samples,
    series,
    diff,
    rerun_report,
    reruns,
    lists,
    canary,
):
    router.include_router(part.router)
