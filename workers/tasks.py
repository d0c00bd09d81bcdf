"""The worker's one Celery task: an order arrives, the supervisor runs it."""

from typing import Any

from celery import Celery

from orchestrator import broker, notes
from orchestrator.wire import Order, Update
from workers.models.weights import Weights
from workers.supervisor import Supervisor


class BrokerHub:
    """The hub as a supervisor sees it, through the broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, update: Update) -> None:
        broker.send_update(self._app, update)

    def stop_requested(self, attempt: str) -> str | None:
        return notes.stop_requested(self._app, attempt)


def register(app: Celery, supervisor: Supervisor, weights: Weights) -> None:
    """Answer orders with this supervisor; what an attempt uses of the downloads stays until it has ended."""

    @app.task(name=broker.ORDER_TASK)  # type: ignore[untyped-decorator]  # Celery has no types
    def order(payload: Any) -> None:
        try:
            received = broker.read(Order, payload)
        except broker.UnreadableMessage as error:
            supervisor.refuse(error.attempt, str(error))
        else:
            with weights.used_by(received.attempt):
                supervisor.run(received)
