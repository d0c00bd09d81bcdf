"""Who asks: the person behind a request, what they may do and see. Known to whatever answers it. Knows no database."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from orchestrator.people import Role, Scope
from orchestrator.visibility import EVERYTHING, Audience

ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Viewer:
    """The person behind a request; nobody has no role."""

    person: int | None = None
    name: str = ""
    role: Role | None = None
    teams: frozenset[str] = frozenset()
    scopes: frozenset[Scope] = field(default=ALL_SCOPES)
    """All of them, but for one who comes with a token."""
    token: int | None = None
    has_accounts: bool = True
    """False for the one person of a site without accounts."""

    @property
    def audience(self) -> Audience:
        """What they may see. Operators see everything: they must find out why something fails."""
        if self.may(Role.OPERATOR, Scope.READ):
            return EVERYTHING
        return Audience(person=self.person, teams=self.teams)

    @property
    def account(self) -> str:
        """The name that something is noted under; empty on a site without accounts, where it would tell nothing."""
        return self.name if self.has_accounts else ""

    def may(self, role: Role, scope: Scope) -> bool:
        """Whether they have this role, or one above it, and came with a right to use it so."""
        return self.role is not None and self.role.includes(role) and scope in self.scopes


NOBODY = Viewer()
LOCAL = Viewer(name="local", role=Role.ADMIN, has_accounts=False)
"""Whoever uses a site without accounts: it answers this machine alone."""

_present: ContextVar[Viewer] = ContextVar("viewer", default=NOBODY)


def present() -> Viewer:
    """Who asks for what is being answered now; nobody where that was never found out."""
    return _present.get()


def set_present(viewer: Viewer) -> None:
    """Say who asks, for the rest of this request."""
    _present.set(viewer)
