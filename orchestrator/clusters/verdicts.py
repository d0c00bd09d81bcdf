"""What operators see of clusters: the last look at each, why it launches or not, and what came of the last launches."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from orchestrator.tables import Cluster, Launch

STALE_ROUNDS = 5
LEAST_STALE = timedelta(minutes=3)
MOST_FAILURES = 3


@dataclass(frozen=True)
class ClusterVerdict:
    name: str
    kind: str
    paused: bool
    paused_by: str
    """Who paused it, where that is known."""
    paused_since: datetime | None
    verdict: str
    """Why it launches or not, as a sentence."""
    looked_at: datetime | None
    gpus: str
    """What the cluster calls them."""
    total: int
    idle: int
    others_waiting: int
    """Jobs of others that wait for them."""
    up: int
    """Launched workers that were heard of."""
    starting: int
    notes: tuple[str, ...]
    """What an operator should mend."""
    failures: tuple[str, ...]
    """Why the last launches came to nothing, the latest first."""


def cluster_verdicts(session: Session, now: datetime) -> list[ClusterVerdict]:
    """Every cluster that was ever looked at, by name."""
    return [_verdict(session, row, now) for row in session.exec(select(Cluster).order_by(Cluster.name))]


def _verdict(session: Session, row: Cluster, now: datetime) -> ClusterVerdict:
    facts = row.facts or {}
    failed = (
        select(Launch.sentence)
        .where(Launch.cluster == row.name, col(Launch.is_death))
        .order_by(col(Launch.asked_at).desc())
        .limit(MOST_FAILURES)
    )
    verdict = row.verdict
    every = timedelta(seconds=float(facts.get("every_seconds", 15)))
    if row.looked_at is not None and now - row.looked_at > max(STALE_ROUNDS * every, LEAST_STALE):
        minutes = (now - row.looked_at).total_seconds() / 60
        verdict = (
            f"Not looked at for {minutes:.0f} min: control is not running, or the clusters file does not name it any "
            f"more. Last: {verdict}"
        )
    return ClusterVerdict(
        name=row.name,
        kind=row.kind,
        paused=row.paused,
        paused_by=row.paused_by,
        paused_since=row.paused_since,
        verdict=verdict or "Not looked at yet.",
        looked_at=row.looked_at,
        gpus=str(facts.get("gpus", "")),
        total=int(facts.get("total", 0)),
        idle=int(facts.get("idle", 0)),
        others_waiting=int(facts.get("others_jobs", 0)),
        up=int(facts.get("up", 0)),
        starting=int(facts.get("starting", 0)),
        notes=tuple(map(str, facts.get("notes", ()))),
        failures=tuple(filter(None, session.exec(failed).all())),
    )
