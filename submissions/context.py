"""What a request needs of the hub: settings, suites, database and artifact store, opened once at start."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi import Path as PathParameter
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlmodel import Session

from orchestrator import broker, db, notes, visibility
from orchestrator.artifacts import ArtifactStore
from orchestrator.board import Boards
from orchestrator.errors import WrongState
from orchestrator.scheduling.places import Policy, scheduling_policy
from orchestrator.settings import HubSettings
from orchestrator.suite_versions import record_suites
from orchestrator.suites import Suite, load_suites
from orchestrator.wire import Mode
from submissions import kept_samples
from submissions.people.accounts import Accounts, open_accounts
from submissions.people.hub_tokens import open_token
from submissions.people.viewer import LOCAL, Viewer, present


@dataclass(frozen=True)
class Hub:
    """The web process's share of the hub."""

    settings: HubSettings
    suites: Mapping[str, Suite]
    engine: Engine
    store: ArtifactStore
    boards: Boards
    """The boards of this process, kept in memory."""
    accounts: Accounts | None = None
    """None where there are none: then one person uses the site, on this machine."""
    viewer: Viewer = LOCAL
    """Who asks. Each request has its own; what is not a request's is the hub's own business."""

    @property
    def policy(self) -> Policy:
        """The scheduler's, for what is said of those who wait."""
        return scheduling_policy(self.settings)

    @property
    def scratch(self) -> Path:
        """Where artifacts of a remote store are kept while they are read."""
        return kept_samples.folder(self.settings)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that shows what the viewer may see, and nothing else."""
        with db.session(self.engine, read_only=True) as opened:
            visibility.restrict(opened, self.viewer.audience)
            yield opened

    def writing(self) -> AbstractContextManager[Session]:
        """A session that sees everything, as changes have consequences for others: check first what may be changed."""
        return db.session(self.engine)

    def need_accounts(self) -> Accounts:
        """The accounts of this site.

        Raises:
            WrongState: it has none.
        """
        if self.accounts is None:
            raise WrongState(
                "This site has no accounts: one person uses it, on this machine, and needs no token. "
                "docs/accounts.md says how to set up accounts."
            )
        return self.accounts

    def hub_token(self, session: Session) -> SecretStr | None:
        """The viewer's own token of the Hub, where they have saved one."""
        sealer = self.accounts.means.sealer if self.accounts is not None else None
        return open_token(session, sealer, self.viewer.person)

    def request_stops(self, attempts: list[str], reason: str) -> None:
        """Ask workers to stop attempts whose jobs were taken from them; harmless when the broker is away."""
        if attempts and self.settings.broker_url:
            app = broker.make_app(self.settings.broker_url, name="web")
            with suppress(broker.BrokerLost):
                for attempt in attempts:
                    notes.request_stop(app, attempt, reason)

    def tell_mode(self, worker: str, mode: Mode) -> None:
        """Tell a worker what an operator wants of it; when it does not hear, control says it again."""
        if self.settings.broker_url:
            with suppress(broker.BrokerLost):
                notes.leave_mode(broker.make_app(self.settings.broker_url, name="web"), worker, mode)


def open_hub(settings: HubSettings) -> Hub:
    """Open everything a web process needs, and bring the database's schema up to date.

    Raises:
        EvalyardError: with a sentence, when something of it cannot be used.
    """
    engine = db.make_engine(settings.database_url)
    db.migrate(engine)
    suites = load_suites(settings.suites)
    with db.session(engine) as session:
        record_suites(session, suites.values(), now=datetime.now(UTC))
    return Hub(
        settings=settings,
        suites=suites,
        engine=engine,
        store=ArtifactStore(settings.artifacts_url, read_only=True),
        boards=Boards(official=settings.official),
        accounts=open_accounts(settings),
    )


async def get_hub(request: Request) -> Hub:
    """The hub as whoever makes this request may see it."""
    hub = request.app.state.hub
    assert isinstance(hub, Hub)
    return replace(hub, viewer=present())


AHub = Annotated[Hub, Depends(get_hub)]
"""The hub, as an operation or a page takes it."""
Id = Annotated[int, PathParameter(ge=1, le=2**62)]
"""Number of an evaluation in an address."""
