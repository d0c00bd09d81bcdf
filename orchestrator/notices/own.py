"""People's own targets: where somebody wants to be told that an evaluation of theirs has ended.

Mail goes to the address that the provider has verified and to no other, so that nobody has strangers written to.
"""

from collections.abc import Collection
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr
from sqlmodel import Session, col, select

from orchestrator.notices import webhooks
from orchestrator.notices.events import EVALUATION_FAILED, EVALUATION_FINISHED, Asker, Message
from orchestrator.notices.outbox import PREFIX
from orchestrator.notices.services import send_by_apprise
from orchestrator.notices.targets import Target
from orchestrator.sealing import Sealer
from orchestrator.tables import OwnTarget, Person

MAIL, WEBHOOK = "mail", "webhook"
KINDS = (MAIL, WEBHOOK)


def own_name(person: int, kind: str) -> str:
    """What logs and the database call a person's own target: it tells no address."""
    return f"{PREFIX}{person}:{kind}"


class Own(NamedTuple):
    """One person's target, as deliveries are made for it."""

    person: int
    kind: str
    sealed: str
    email: str | None

    @property
    def name(self) -> str:
        return own_name(self.person, self.kind)

    def wants(self, event: str, *, asker: Asker) -> bool:
        return asker.person == self.person and event in (EVALUATION_FINISHED, EVALUATION_FAILED)


def load_own(session: Session, *, has_mail: bool) -> list[Own]:
    """Every target of people who may still sign in; those of mail only where the hub can send any."""
    statement = (
        select(OwnTarget, Person.email)
        .join(Person, col(Person.id) == col(OwnTarget.person_id))
        .where(col(Person.blocked).is_(False))
    )
    found = [Own(row.person_id, row.kind, row.sealed, email) for row, email in session.exec(statement).all()]
    return [one for one in found if one.kind != MAIL or (has_mail and one.email)]


class Sender(NamedTuple):
    """What sending to people's own targets takes."""

    sealer: Sealer
    mail: SecretStr | None
    """Apprise's address of the mail server, without whom it is to."""
    allowed: Collection[str]
    """Hosts that webhooks may reach though they are not public."""

    def send(self, own: Own, message: Message) -> str:
        """Send a message; returns what went wrong, empty when it was taken."""
        if own.kind == MAIL:
            return self._mail(own, message)
        url = self.sealer.open(own.sealed)
        if url is None:
            return "Its address was sealed with another key. Give it again."
        text = f"{message.subject}\n{message.body}".rstrip()
        return webhooks.post(url, {"text": text, "notices": list(message.records)}, allowed=self.allowed)

    def _mail(self, own: Own, message: Message) -> str:
        assert self.mail is not None
        assert own.email is not None
        address = SecretStr(mail_to(self.mail.get_secret_value(), own.email))
        return send_by_apprise(Target.model_construct(name="mail", url=address), message)


def mail_to(server: str, email: str) -> str:
    """The address of a mail server with whom a mail is to. Pure."""
    parts = urlsplit(server)
    query: list[tuple[str, Any]] = [one for one in parse_qsl(parts.query) if one[0] not in ("to", "cc", "bcc")]
    return urlunsplit(parts._replace(query=urlencode([*query, ("to", email)])))
