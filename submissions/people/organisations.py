"""How many new evaluations of one Hub organisation's models may be asked for in a week, whoever asks.

Counted in the database by the name that the Hub has for the repository now, in lower case: neither upper case nor an
old name of it is another organisation's.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select, text

from orchestrator.people import Role, Scope
from orchestrator.settings import HubSettings
from orchestrator.tables import Submission
from submissions.people.refusals import TooMany
from submissions.people.viewer import Viewer

WEEK = timedelta(days=7)


def check_organisation(
    session: Session, settings: HubSettings, *, viewer: Viewer, organisation: str, now: datetime
) -> None:
    """That what this transaction has just recorded is within the limit; none limits operators and official providers.

    Raises:
        TooMany: it is not; the transaction must be undone.
    """
    most = settings.organisation_submissions_per_week
    if not most or not organisation or organisation in settings.official:
        return
    if viewer.may(Role.OPERATOR, Scope.SUBMIT):
        return
    if session.get_bind().dialect.name == "postgresql":
        # Those that come at the same moment follow each other; SQLite has one writer anyway.
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"organisation {organisation}"})
    recent = (Submission.organisation == organisation, col(Submission.submitted_at) > now - WEEK)
    if session.exec(select(func.count()).select_from(Submission).where(*recent)).one() <= most:
        return
    first = session.exec(select(func.min(Submission.submitted_at)).where(*recent)).one()
    wait = max(60, int((first + WEEK - now).total_seconds()))
    raise TooMany(
        f"There were {most} new evaluations of {organisation}'s models within seven days, which is the most here. "
        f"The next is possible in {wait // 3600} h {wait % 3600 // 60} min; operators can raise the limit.",
        retry_after=wait,
    )
