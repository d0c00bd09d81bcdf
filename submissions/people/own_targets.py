"""Where a person is told that an evaluation of theirs has ended: kept, shown without its secret, removed by them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlmodel import Session, col, select

from orchestrator.errors import NotFound, Refused
from orchestrator.notices.own import MAIL, WEBHOOK, own_name
from orchestrator.sealing import Sealer
from orchestrator.tables import Delivery, OwnTarget, Person
from submissions.people.viewer import Viewer


class Means(NamedTuple):
    """By what this site can tell people."""

    sealer: Sealer
    has_mail: bool
    """Whether the notifications file names a mail server."""
    allowed: Collection[str]
    """Hosts that webhooks may reach though they are not public."""


class Shown(NamedTuple):
    kind: str
    address: str
    """An e-mail address, or a webhook's host: its path is a secret."""
    made_at: datetime
    trouble: str
    """Why the last message is not taken yet; empty while nothing is tried again."""


def list_targets(session: Session, means: Means, person: int) -> list[Shown]:
    """The person's own, as they may be shown."""
    own = select(OwnTarget).where(OwnTarget.person_id == person).order_by(col(OwnTarget.kind))
    found = session.exec(own).all()
    somebody = session.get(Person, person)
    email = somebody.email if somebody is not None else None
    troubles = _troubles(session, [own_name(person, row.kind) for row in found])
    return [
        Shown(
            row.kind,
            (email or "no verified address") if row.kind == MAIL else _host(means, row),
            row.made_at,
            troubles.get(own_name(person, row.kind), ""),
        )
        for row in found
    ]


def keep_target(session: Session, means: Means, viewer: Viewer, kind: str, *, url: str, now: datetime) -> None:
    """Tell the viewer from now on, by mail to their verified address or by a webhook at `url`, which
    `webhooks.check_webhook` has let pass.

    Raises:
        Refused: no mail can be sent.
    """
    assert viewer.person is not None
    person = session.exec(select(Person).where(Person.id == viewer.person).with_for_update()).one()
    sealed = ""
    if kind == WEBHOOK:
        sealed = means.sealer.seal(url)
    elif url.strip():
        raise Refused("Mail goes to the address that your provider has verified. Leave the address out.")
    elif not means.has_mail:
        raise Refused("This site sends no mail: its operators name a mail server in the notifications file.")
    elif not person.email:
        raise Refused("Your provider has told no verified e-mail address of you. Have it verified and sign in again.")
    row = session.get(OwnTarget, (viewer.person, kind)) or OwnTarget(person_id=viewer.person, kind=kind, made_at=now)
    row.sealed, row.made_at = sealed, now
    session.add(row)
    session.flush()


def remove_target(session: Session, viewer: Viewer, kind: str) -> None:
    """Tell the viewer no more by this.

    Raises:
        NotFound: they are not told by it.
    """
    row = session.get(OwnTarget, (viewer.person, kind))
    if row is None:
        raise NotFound(f"You are not told by {kind}. `evalyard notify` lists how you are.")
    session.delete(row)
    session.flush()


def _troubles(session: Session, names: Sequence[str]) -> dict[str, str]:
    """Why deliveries to these targets that are tried again were not taken; of each the latest."""
    tried = select(Delivery.target, Delivery.sentence).where(
        Delivery.state == "pending", Delivery.sentence != "", col(Delivery.target).in_(names)
    )
    return dict(session.exec(tried.order_by(col(Delivery.notice_id))).all())


def _host(means: Means, row: OwnTarget) -> str:
    url = means.sealer.open(row.sealed)
    if url is None:
        return "an address that another key sealed: give it again"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"
