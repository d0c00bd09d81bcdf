"""What a request needs of the hub: settings, suites, database and artifact store, opened once at start."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi import Path as PathParameter
from sqlalchemy import Engine
from sqlmodel import Session

from orchestrator import broker, db
from orchestrator.artifacts import ArtifactStore
from orchestrator.scheduling.places import Policy, scheduling_policy
from orchestrator.settings import HubSettings
from orchestrator.suites import Suite, load_suites
from orchestrator.wire import Mode


@dataclass(frozen=True)
class Hub:
    """The web process's share of the hub."""

    settings: HubSettings
    suites: Mapping[str, Suite]
    engine: Engine
    store: ArtifactStore

    @property
    def policy(self) -> Policy:
        """The scheduler's, for what is said of those who wait."""
        return scheduling_policy(self.settings)

    @property
    def scratch(self) -> Path:
        """Where artifacts of a remote store are kept while they are read."""
        return self.settings.data / "cache"

    def reading(self) -> AbstractContextManager[Session]:
        return db.session(self.engine, read_only=True)

    def writing(self) -> AbstractContextManager[Session]:
        return db.session(self.engine)

    def request_stops(self, attempts: list[str], reason: str) -> None:
        """Ask workers to stop attempts whose jobs were taken from them; harmless when the broker is away."""
        if attempts and self.settings.broker_url:
            app = broker.make_app(self.settings.broker_url, name="web")
            with suppress(broker.BrokerLost):
                for attempt in attempts:
                    broker.request_stop(app, attempt, reason)

    def tell_mode(self, worker: str, mode: Mode) -> None:
        """Tell a worker what an operator wants of it; when it does not hear, control says it again."""
        if self.settings.broker_url:
            with suppress(broker.BrokerLost):
                broker.leave_mode(broker.make_app(self.settings.broker_url, name="web"), worker, mode)


def open_hub(settings: HubSettings) -> Hub:
    """Open everything a web process needs, and bring the database's schema up to date.

    Raises:
        EvalyardError: with a sentence, when something of it cannot be used.
    """
    engine = db.make_engine(settings.database_url)
    db.migrate(engine)
    return Hub(
        settings=settings,
        suites=load_suites(settings.suites),
        engine=engine,
        store=ArtifactStore(settings.artifacts_url, read_only=True),
    )


def get_hub(request: Request) -> Hub:
    hub = request.app.state.hub
    assert isinstance(hub, Hub)
    return hub


AHub = Annotated[Hub, Depends(get_hub)]
"""The hub, as an operation or a page takes it."""
Id = Annotated[int, PathParameter(ge=1, le=2**62)]
"""Number of an evaluation in an address."""
