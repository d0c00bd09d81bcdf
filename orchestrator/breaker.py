"""Holds a worker back whose host seems to be sick: it gets no job for a while, then one at a time until one succeeds.

A host is suspected when attempts of three different evaluations failed there in a row, by causes that a host can have,
while another worker of its kind completed jobs in the meantime. Where nobody else completes anything, the cause is
shared (the store, the Hub, the network) or cannot be told from a bad model: then nobody is held back, and the jobs' own
pauses do. What fails again elsewhere was the job's fault and counts against no host. `orchestrator.jobs` and `updates`
report to this module in the transaction of the move itself. Workers that a cluster starts have new names each time:
theirs is the health of their host, where a launcher or `EVALYARD_WORKER_HOST` names it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from orchestrator import arrows
from orchestrator.tables import Attempt, Health, Job, Worker
from orchestrator.wire import FailureKind, Stage

SUSPECT = frozenset(
    {
        FailureKind.DOWNLOAD,
        FailureKind.ENGINE,
        FailureKind.HARNESS,
        FailureKind.NODE_LOST,
        FailureKind.STORAGE,
        FailureKind.TIMEOUT,
    }
)
"""Failures that a host may be the cause of. Out of memory is not among them: whether a model fits is for the plan."""

IN_A_ROW = 3
"""Evaluations whose attempts must have failed, without one that succeeded in between."""

FIRST_HOLD = timedelta(minutes=1)
LONGEST_HOLD = timedelta(hours=1)

SOON = timedelta(minutes=10)
"""A host that was lost later than this after it got a job is one that is taken away now and then, not a sick one."""

KEPT = 10
"""Failures that are kept as evidence."""


class Suspicion(NamedTuple):
    """What is held against a worker that is held back, or was and has not succeeded since."""

    held_back: bool
    """It gets no job now; otherwise it is on trial, with one job at a time."""
    sentence: str


@dataclass(frozen=True)
class Hold:
    """No job until then, for the reason given."""

    until: datetime
    times: int
    sentence: str


def judge(failures: Sequence[dict[str, Any]], *, times: int, others: Sequence[str], now: datetime) -> Hold | None:
    """Whether a worker with these failures in a row, held back so many times already, is to be held back. Pure.

    `others` are workers of its kind that completed a job since the first of the failures.
    """
    evaluations = sorted({failure["evaluation"] for failure in failures})
    if len(evaluations) < IN_A_ROW or not others:
        return None
    pause = min(FIRST_HOLD * 2 ** min(times, 30), LONGEST_HOLD)
    listed = ", ".join(map(str, evaluations))
    # Everybody reads it: the failures' own sentences name models that not everybody may see.
    sentence = (
        f"held back until {now + pause:%Y-%m-%d %H:%M:%S} UTC: attempts of {len(evaluations)} evaluations ({listed}) "
        f"failed here in a row, while {others[0]} completed its jobs. The last was in evaluation "
        f"{failures[-1]['evaluation']}."
    )
    return Hold(now + pause, times + 1, sentence)


def suspicions(session: Session, *, now: datetime) -> dict[str, Suspicion]:
    """The workers that are held back or on trial, by name; nothing is known against the others."""
    found = {}
    for health in session.exec(select(Health).where(Health.times_held_back > 0)):
        held_back = health.held_back_until is not None and now < health.held_back_until
        trial = f"on trial, with one job at a time until one completes. {health.sentence}"
        found[health.worker] = Suspicion(held_back, health.sentence if held_back else trial)
    if not found:
        return {}
    launched = session.exec(select(Worker.name, Worker.host).where(col(Worker.host).in_(found))).all()
    return found | {name: found[host] for name, host in launched}


def held_hosts(session: Session, cluster: str, *, now: datetime) -> list[str]:
    """Hosts of a cluster on which launched workers are held back now: no other should be launched there."""
    statement = select(Health.worker).where(
        col(Health.worker).startswith(f"{cluster}/", autoescape=True), col(Health.held_back_until) > now
    )
    return sorted(subject.partition("/")[2] for subject in session.exec(statement))


def note_failure(
    session: Session, job: Job, attempt: str, *, failure: FailureKind, sentence: str, now: datetime
) -> None:
    """An attempt has failed: count it against its worker, unless its job has failed so elsewhere, too."""
    row = session.exec(select(Attempt).where(Attempt.id == attempt)).one()
    elsewhere = session.exec(
        select(Attempt.worker)
        .where(
            Attempt.job_id == job.id,
            Attempt.worker != row.worker,
            Attempt.failure == failure,
            col(Attempt.outcome).in_(("failed", "expired")),
        )
        .distinct()
    ).all()
    subjects = _subjects(session, {row.worker, *elsewhere})
    own = subjects[row.worker]
    # Another worker that was launched on the same host is no other host.
    elsewhere = [subjects[other] for other in elsewhere if subjects[other] != own]
    found = _lock(session, elsewhere, own={own: job.stage})
    for other in elsewhere:
        if other in found:
            _acquit(session, found[other], job)
    if elsewhere or failure not in SUSPECT or _taken_away(row, failure, now=now):
        return
    health = found[own]
    last = health.failures[-1] if health.failures else None
    if failure is FailureKind.NODE_LOST and last is not None and (last["failure"], last["boot"]) == (failure, row.boot):
        # One loss of a host takes all its attempts with it: that is one sign, not several.
        return
    evidence = _evidence(job, row, failure=failure, sentence=sentence, now=now)
    health.failures = [*health.failures, evidence][-KEPT:]
    session.add(health)
    session.flush()
    if health.held_back_until is not None and row.dispatched_at < health.held_back_until:
        # It was given out before the hold, and is no trial of it.
        return
    since = datetime.fromisoformat(health.failures[0]["at"])
    others = _succeeding(session, health, since=since)
    hold = judge(health.failures, times=health.times_held_back, others=others, now=now)
    if hold is not None:
        health.held_back_until, health.times_held_back, health.sentence = hold.until, hold.times, hold.sentence
    session.add(health)
    session.flush()


def note_successes(session: Session, stages: Mapping[str, Stage], *, now: datetime) -> None:
    """Attempts have completed on these workers, each at this stage: their hosts are sound.

    The last that a transaction locks but for `Speed` rows; in the order of their names, as `note_failure` does.
    """
    subjects = _subjects(session, stages)
    found = _lock(session, {}, own={subjects[worker]: stage for worker, stage in stages.items()})
    sound = [name for name, health in found.items() if not health.failures and not health.times_held_back]
    session.connection().execute(update(Health).where(col(Health.worker).in_(sound)).values(succeeded_at=now))
    for name in sorted(found.keys() - set(sound)):
        found[name].succeeded_at = now
        _clear(session, found[name])


def shorten_holds(session: Session, *, now: datetime) -> int:
    """Let no hold last longer than one may: the clock that made it was set back. Returns how many were shortened."""
    late = update(Health).where(col(Health.held_back_until) > now + LONGEST_HOLD)
    return session.connection().execute(late.values(held_back_until=now + FIRST_HOLD)).rowcount


def forgive(session: Session, worker: str) -> bool:
    """An operator says that the host is sound; False when nothing was held against it."""
    subject = _subjects(session, [worker])[worker]
    health = session.exec(select(Health).where(Health.worker == subject).with_for_update()).first()
    if health is None or not health.failures:
        return False
    _clear(session, health)
    return True


def _subjects(session: Session, workers: Collection[str]) -> dict[str, str]:
    """Whose health it is that each worker's attempts tell of: its own, or its host's where that is named."""
    hosts = session.exec(select(Worker.name, Worker.host).where(col(Worker.name).in_(workers))).all()
    return {name: name for name in workers} | {name: host for name, host in hosts if host}


def _clear(session: Session, health: Health) -> None:
    health.failures, health.held_back_until, health.times_held_back, health.sentence = [], None, 0, ""
    session.add(health)
    session.flush()


def _acquit(session: Session, health: Health, job: Job) -> None:
    """The job failed on another host, too: it says nothing of this one."""
    left = [failure for failure in health.failures if failure["job"] != job.id]
    if len(left) == len(health.failures):
        return
    if len({failure["evaluation"] for failure in left}) < IN_A_ROW:
        _clear(session, health)
    health.failures = left
    session.add(health)
    session.flush()


def _lock(session: Session, others: Collection[str], *, own: Mapping[str, Stage]) -> dict[str, Health]:
    """These workers' rows, locked in the order of their names; an own one is made when there is none yet."""
    names = {*others, *own}
    statement = select(Health).where(col(Health.worker).in_(names)).order_by(col(Health.worker)).with_for_update()
    statement = statement.execution_options(populate_existing=True)
    rows = session.exec(statement).all()
    if new := sorted(own.keys() - {row.worker for row in rows}):
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        values = [_unknown(name, own[name]) for name in new]
        # Another control process may make it at the same moment.
        session.connection().execute(insert(Health).values(values).on_conflict_do_nothing())
        rows = session.exec(statement).all()
    return {row.worker: row for row in rows}


def _unknown(worker: str, stage: Stage) -> dict[str, Any]:
    kind = "engine" if stage.needs_engine else "harness"
    return {"worker": worker, "kind": kind, "failures": [], "times_held_back": 0, "sentence": ""}


def _succeeding(session: Session, health: Health, *, since: datetime) -> list[str]:
    """Other workers of its kind that completed a job since then."""
    statement = select(Health.worker).where(
        Health.kind == health.kind, Health.worker != health.worker, col(Health.succeeded_at) >= since
    )
    return list(session.exec(statement.order_by(col(Health.succeeded_at).desc()).limit(3)))


def _taken_away(attempt: Attempt, failure: FailureKind, *, now: datetime) -> bool:
    return failure is FailureKind.NODE_LOST and now - attempt.dispatched_at > SOON


def _evidence(job: Job, attempt: Attempt, *, failure: FailureKind, sentence: str, now: datetime) -> dict[str, Any]:
    return {
        "attempt": attempt.id,
        "evaluation": job.evaluation_id,
        "job": job.id,
        "stage": job.stage.value,
        "boot": attempt.boot,
        "failure": failure.value,
        "sentence": arrows.clean(sentence)[:300],
        "at": now.isoformat(),
    }
