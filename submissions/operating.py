"""The API's operations for operators: let a worker end what it runs, pause it, and let it work again.

Until there are accounts the site answers this machine alone, and whoever uses it is the operator.
"""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path

from orchestrator.modes import set_mode
from orchestrator.wire import Mode
from submissions.api import FOUND, VERSION
from submissions.context import AHub
from submissions.reading.queues import read_worker
from submissions.records import WorkerAnswer

router = APIRouter(prefix=f"/api/{VERSION}")


class Action(StrEnum):
    DRAIN = "drain"
    PAUSE = "pause"
    RESUME = "resume"


MODES = {Action.DRAIN: Mode.DRAINED, Action.PAUSE: Mode.PAUSED, Action.RESUME: Mode.OPEN}
SAID = {
    Action.DRAIN: "is drained: it ends what it runs and takes nothing new.",
    Action.PAUSE: "is paused: it gives back what it runs, within its grace, and takes nothing new.",
    Action.RESUME: "works again.",
}


@router.post("/workers/{name}/{action}", responses=FOUND, summary="Drain, pause or resume a worker")
def operate(name: Annotated[str, Path(max_length=100)], action: Action, hub: AHub) -> WorkerAnswer:
    """It holds from now on, also when the worker is away or is started again, until it is resumed."""
    with hub.writing() as session:
        set_mode(session, name, MODES[action], by=hub.viewer.account)
        worker = read_worker(session, name)
    hub.tell_mode(name, worker.mode)
    away = "" if worker.is_up else " It is not up now, and hears of it when it comes back."
    return WorkerAnswer(message=f"Worker {name} {SAID[action]}{away}", worker=worker)
