"""The rows of clusters and launches: which control process looks, what was launched, what became of it.

Alone writes them. It asks no cluster: what one said is given to it.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, update
from sqlmodel import Session, col, select

from orchestrator.clusters.contract import ClusterView, JobState, OwnJob
from orchestrator.clusters.decision import Deaths, Ending, OpenLaunch
from orchestrator.errors import NotFound
from orchestrator.tables import Attempt, Cluster, Launch, Worker

HOLD = timedelta(minutes=3)
"""How long a control process may be silent before another one looks in its place: a look at a slow Slurm is five
commands of 20 s each."""

UNKNOWN_AFTER = timedelta(seconds=60)
"""A launch that the cluster does not know this long after it was asked did not reach it."""

KEPT = timedelta(days=30)
SHOWN = timedelta(hours=1)
"""How long a launched worker is listed after its end; a job waits less long for a device that it saw last."""

MOST_DEATHS = 50


def hold(session: Session, name: str, *, kind: str, holder: str, pause: timedelta, now: datetime) -> Cluster | None:
    """The cluster, if it is this control process's turn to look at it; makes its row at first."""
    if session.get(Cluster, name) is None:
        session.add(Cluster(name=name, kind=kind, token=secrets.token_hex(6)))
        session.flush()
    if not extend(session, name, holder=holder, now=now):
        return None
    cluster = session.get(Cluster, name, populate_existing=True)
    assert cluster is not None
    cluster.kind = kind
    # A look of the future is from before the clock was set back.
    if cluster.looked_at is not None and timedelta(0) <= now - cluster.looked_at < pause:
        return None
    return cluster


def siblings(session: Session, name: str) -> frozenset[str]:
    """Tokens of this hub's other entries: two may launch on the same GPUs, and their jobs are not those of others."""
    return frozenset(session.exec(select(Cluster.token).where(Cluster.name != name)))


def extend(session: Session, name: str, *, holder: str, now: datetime) -> bool:
    """Hold the cluster from now on; False when another control process does."""
    free = or_(
        col(Cluster.held_until).is_(None),
        col(Cluster.held_until) <= now,
        col(Cluster.held_until) > now + 2 * HOLD,  # from before the clock was set back
        col(Cluster.held_by) == holder,
    )
    statement = update(Cluster).where(col(Cluster.name) == name, free).values(held_by=holder, held_until=now + HOLD)
    return bool(session.connection().execute(statement).rowcount)


def note_look(session: Session, name: str, *, verdict: str, facts: dict[str, Any] | None, now: datetime) -> None:
    """What a look found; without facts those of the last one stay."""
    values: dict[str, Any] = {"looked_at": now, "verdict": verdict}
    if facts is not None:
        values["facts"] = facts
    session.connection().execute(update(Cluster).where(col(Cluster.name) == name).values(**values))


def pause(session: Session, name: str, *, paused: bool, by: str = "", now: datetime | None = None) -> Cluster:
    """Launch nothing more on a cluster, noting who wants that (`by`); or launch again, with past failures forgiven.

    Raises:
        NotFound: there is no such cluster.
    """
    cluster = session.exec(select(Cluster).where(Cluster.name == name).with_for_update()).first()
    if cluster is None:
        known = ", ".join(session.exec(select(Cluster.name).order_by(Cluster.name)).all()) or "none"
        raise NotFound(f"There is no cluster {name}. Known: {known}.")
    if not paused:
        cluster.paused_by, cluster.paused_since = "", None
    elif not cluster.paused:
        cluster.paused_by, cluster.paused_since = by, now or datetime.now(UTC)
    cluster.paused = paused
    session.add(cluster)
    if not paused:
        statement = update(Launch).where(col(Launch.cluster) == name, col(Launch.is_death)).values(is_death=False)
        session.connection().execute(statement)
    session.flush()
    return cluster


def worker_name(cluster: str, launch: str) -> str:
    return f"{cluster}-{launch}"


def note_launch(session: Session, cluster: str, *, now: datetime) -> Launch:
    """The row of a launch that the cluster is asked for next."""
    mark = secrets.token_hex(5)
    launch = Launch(id=mark, cluster=cluster, worker=worker_name(cluster, mark), asked_at=now)
    session.add(launch)
    session.flush()
    return launch


def note_handle(session: Session, launch: str, handle: str) -> None:
    session.connection().execute(update(Launch).where(col(Launch.id) == launch).values(handle=handle))


def note_refusal(session: Session, launch: str, sentence: str, *, now: datetime) -> None:
    """The cluster did not take it: that counts as a death."""
    statement = update(Launch).where(col(Launch.id) == launch, col(Launch.ended_at).is_(None))
    values = {"state": JobState.ENDED.value, "ended_at": now, "is_death": True, "sentence": sentence}
    session.connection().execute(statement.values(**values))


def note_ending(session: Session, ending: Ending, *, now: datetime) -> None:
    """The cluster was asked to end it."""
    statement = update(Launch).where(col(Launch.id) == ending.launch, col(Launch.ended_at).is_(None))
    values = {"ending_at": now, "is_death": ending.is_death, "sentence": ending.sentence}
    session.connection().execute(statement.values(**values))


def reconcile(session: Session, cluster: str, view: ClusterView, *, now: datetime) -> list[Launch]:
    """Bring the rows up to what the cluster and the workers say; returns the launches that have not ended."""
    # One mark may be on an old job and its successor: the one that lives counts.
    jobs = {job.launch: job for job in sorted(view.jobs, key=lambda job: job.state is not JobState.ENDED)}
    known = _open(session, cluster)
    for job in jobs.values():
        if job.state is not JobState.ENDED and job.launch not in {row.id for row in known}:
            known.append(_adopt(session, cluster, job, now=now))
    heard = _heard(session, [row.worker for row in known])
    for row in known:
        if row.worker in heard and row.up_at is None:
            row.up_at = now
        _follow(row, jobs.get(row.id), now=now)
        session.add(row)
    _forget_ended(session, cluster, now=now)
    old = delete(Launch).where(col(Launch.cluster) == cluster, col(Launch.ended_at) < now - KEPT)
    session.connection().execute(old)
    session.flush()
    return [row for row in known if row.ended_at is None]


def as_open(session: Session, launches: Sequence[Launch]) -> list[OpenLaunch]:
    """The same launches as the decision looks at them."""
    names = [row.worker for row in launches]
    heard = _heard(session, names)
    held = select(Attempt.worker).where(col(Attempt.worker).in_(names), col(Attempt.ended_at).is_(None))
    busy = set(session.exec(held).all()) if names else set()
    return [
        OpenLaunch(
            id=row.id,
            state=JobState(row.state),
            asked_at=row.asked_at,
            running_since=row.running_since,
            heard_at=heard[row.worker].last_heartbeat if row.up_at is not None and row.worker in heard else None,
            busy=row.worker in busy,
            ending=row.ending_at is not None or (row.worker in heard and heard[row.worker].stopping),
            sentence=row.sentence,
        )
        for row in launches
    ]


def read_deaths(session: Session, cluster: str, *, now: datetime) -> Deaths:
    """Launches that came to nothing since one last came up; what lies ahead is from before the clock was set back."""
    came = select(func.max(Launch.up_at)).where(Launch.cluster == cluster, col(Launch.up_at) <= now)
    up = came.scalar_subquery()
    statement = select(Launch).where(
        Launch.cluster == cluster,
        col(Launch.is_death),
        col(Launch.ended_at).is_not(None),
        or_(up.is_(None), col(Launch.ended_at) > up),
    )
    found = session.exec(statement.order_by(col(Launch.ended_at).desc()).limit(MOST_DEATHS)).all()
    if not found:
        return Deaths()
    return Deaths(len(found), found[0].ended_at, found[0].sentence)


def _open(session: Session, cluster: str) -> list[Launch]:
    statement = select(Launch).where(Launch.cluster == cluster, col(Launch.ended_at).is_(None))
    return list(session.exec(statement.order_by(col(Launch.asked_at), col(Launch.id)).with_for_update()))


def _heard(session: Session, workers: Sequence[str]) -> dict[str, Worker]:
    if not workers:
        return {}
    return {row.name: row for row in session.exec(select(Worker).where(col(Worker.name).in_(workers)))}


def _forget_ended(session: Session, cluster: str, *, now: datetime) -> None:
    """Workers that were launched and have ended: no other will have their names, and lists would fill with them."""
    ended = select(Launch.worker).where(Launch.cluster == cluster, col(Launch.ended_at) < now - SHOWN)
    open_attempt = select(Attempt.id).where(Attempt.worker == Worker.name, col(Attempt.ended_at).is_(None))
    statement = delete(Worker).where(col(Worker.name).in_(ended), ~open_attempt.exists())
    session.connection().execute(statement.execution_options(synchronize_session=False))


def _adopt(session: Session, cluster: str, job: OwnJob, *, now: datetime) -> Launch:
    """A job with our token that no open row knows: the database is of an earlier day, or it came very late."""
    row = session.get(Launch, job.launch)
    if row is None:
        row = Launch(id=job.launch, cluster=cluster, worker=worker_name(cluster, job.launch), asked_at=now)
    row.ended_at, row.is_death = None, False
    return row


def _follow(row: Launch, job: OwnJob | None, *, now: datetime) -> None:
    if job is None:
        if row.handle is not None:
            _end(row, "The cluster does not list it any more.", now=now)
        elif not timedelta(0) <= now - row.asked_at < UNKNOWN_AFTER:
            _end(row, "The cluster never got it.", now=now)
        return
    row.handle = job.handle
    row.state = job.state.value
    if row.ending_at is None:
        row.sentence = job.sentence
    if job.state is JobState.RUNNING and row.running_since is None:
        row.running_since = now
    if job.state is JobState.ENDED:
        _end(row, job.sentence, now=now)


def _end(row: Launch, sentence: str, *, now: datetime) -> None:
    row.state = JobState.ENDED.value
    row.ended_at = now
    if row.ending_at is None:
        row.sentence = sentence
        row.is_death = row.up_at is None and "PREEMPTED" not in sentence
