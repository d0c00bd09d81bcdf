"""A whole storm with its fleet, from start to summary: `make faults N=1000 SEED=7`.

python -m tests.faults.run --faults 300 --seed 1 --database postgresql
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg

from tests.faults import invariants
from tests.faults.disturbances import Disturbances
from tests.faults.invariants import Recovery, Undisturbed
from tests.faults.storm import Storm
from tests.faults.strikes import CONTROLS, Strikes, kept
from tests.fleet import TICK_SECONDS, Fleet
from tests.postgres import Server, running_server
from tests.services import processes_with, valkey
from tests.tiny import build_tiny_model
from workers import segments

SHAPES = (("short", 12), ("short", 30), ("flow", 10), ("sharing", 10))
SHORT_SHAPES = (("short", 10),)
LEASE_SECONDS = 8.0
STALLED_SECONDS = 420.0
"""Longest pause before a retry, and more than a slow stage takes."""

SLACK_SECONDS = 3.0
"""For one round of the reaper on a machine that is not busy; as often longer as there are programs for a core."""


MOST_FAILED = 0.25
"""Share of the evaluations that a storm may fail, wholly or in part, in spite of all tries. A hub that gives up at once
fails nearly all."""


@dataclass
class Report:
    """What a storm showed."""

    seed: int
    database: str
    storm: Storm
    broken: list[str]
    """Invariants that do not hold, a sentence each."""
    recovery: Recovery
    computed: int
    redone: int
    seconds: float
    states: dict[str, int] = field(default_factory=dict)
    peak_load: float = 0.0

    def __str__(self) -> str:
        lines = [f"{count:5d}  {kind}" for kind, count in sorted(self.storm.made.items(), key=lambda one: -one[1])]
        failed = [f"       {one}: {sentence}" for one, sentence in self.storm.failed.items()]
        states = ", ".join(f"{count} {state}" for state, count in self.states.items())
        asked = ", ".join(f"{count} times {what}" for what, count in self.storm.asked.items() if count)
        given_up = f"{len(self.storm.given_up)} evaluations that were under way were cancelled"
        stopped = [f"Stopped by Ctrl-C: {given_up}, and what failed was not retried"]
        largest = self.recovery.largest.total_seconds()
        overdue = max(self.recovery.most_overdue.total_seconds(), 0.0)
        return "\n".join(
            (
                f"Seed {self.seed} on {self.database}: {self.storm.made.total()} faults in {self.seconds:.0f} s",
                *lines,
                *(stopped if self.storm.stopping.is_set() else []),
                f"Evaluations: {states}{'; ' + asked if asked else ''}",
                f"Failed, wholly or in part, before they were retried in the calm: {len(failed)}",
                *failed,
                f"Recoveries: {self.recovery.recovered}; largest recovery time {largest:.1f} s, "
                f"at most {overdue:.1f} s after the hub could know",
                f"Requests computed: {self.computed}, of which again: {self.redone}",
                f"Largest load: {self.peak_load:.1f} programs for a core",
                f"Invariants broken: {len(self.broken)}",
                *self.broken,
            )
        )


class Models:
    """Models that differ in one byte of their config: the scripted engine answers all alike."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = build_tiny_model(folder / "template")

    def __call__(self, number: int) -> Path:
        folder = self._folder / f"model-{number}"
        if not folder.exists():
            shutil.copytree(self._template, folder)
            config = folder / "config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"number": number}))
        return folder


def run(
    folder: Path,
    *,
    seed: int,
    faults: int,
    database: Server | None = None,
    shapes: tuple[tuple[str, int], ...] = SHAPES,
    open_at_once: int = 6,
    tell: Callable[[str], None] = print,
    stopping: threading.Event | None = None,
) -> Report:
    """Let a storm rage in this folder, and judge what is left; `stopping` ends it before its time.

    Raises:
        AssertionError: the evaluations do not end.
    """
    url = f"sqlite:///{folder / 'evalyard.db'}" if database is None else _fresh(database, seed)
    models = Models(folder / "models")
    began = time.monotonic()
    with valkey(folder / "valkey") as broker:
        fleet = Fleet(folder / "data", url, broker, lease_seconds=_lease())
        kept(fleet).mkdir()
        (fleet.folder / "artifacts").symlink_to(kept(fleet))
        disturbances = Disturbances(fleet, CONTROLS)
        strikes = Strikes(fleet, disturbances, database)
        try:
            strikes.revive()
            undisturbed, seconds, alone = _undisturbed(fleet, models, shapes)
            strikes.spared = invariants.identities(fleet, alone)
            storm = Storm(
                fleet,
                strikes,
                seed,
                shapes,
                models,
                pause_seconds=min(max(0.5, seconds / 15), 3.0),
                open_at_once=open_at_once,
                tell=tell,
                stopping=stopping or threading.Event(),
            )
            tell(f"undisturbed: {seconds:.1f} s for an evaluation; a fault every {storm.pause_seconds:.1f} s")
            storm.rage(faults)
            storm.settle(stalled_seconds=STALLED_SECONDS)
            return _judge(fleet, storm, undisturbed, seconds=time.monotonic() - began)
        finally:
            disturbances.close()
            strikes.calm()
            fleet.stop()


def _lease() -> float:
    """Seconds of a lease: on a machine that is busy with other things a heartbeat waits for its turn."""
    return min(max(LEASE_SECONDS, 2 * os.getloadavg()[0] / (os.cpu_count() or 1)), 30.0)


def _undisturbed(
    fleet: Fleet, models: Models, shapes: tuple[tuple[str, int], ...]
) -> tuple[Undisturbed, float, dict[int, object]]:
    """What each shape gives without faults, how long one takes, and the evaluations that said so."""
    evaluations = {}
    for number, shape in enumerate(shapes):
        evaluations[fleet.submit(models(-1 - number), suite=shape[0], limit=shape[1])] = shape
    spans = []
    for evaluation in evaluations:
        row = fleet.wait_for(evaluation, seconds=600)
        assert row.average is not None, row.sentence
        spans.append((row.ended_at - row.started_at).total_seconds())
    answers = {
        record.id: record
        for key in fleet.store.list("responses")
        for record in segments.read(fleet.store.fetch_file(key, fleet.folder))[1]
    }
    numbers = {shape: fleet.scores(evaluation) for evaluation, shape in evaluations.items()}
    return Undisturbed(numbers, answers), sum(spans) / len(spans), dict(evaluations)


def _judge(fleet: Fleet, storm: Storm, undisturbed: Undisturbed, *, seconds: float) -> Report:
    disturbances, damaged = storm.strikes.disturbances, storm.strikes.damaged
    lease = timedelta(seconds=fleet.lease_seconds)
    recovery = invariants.recovery(
        fleet,
        lambda moment: disturbances.listens_at(moment, lease=lease),
        lambda begin, end: timedelta(seconds=disturbances.late_between(begin, end)),
    )
    broken = [
        *invariants.ended(fleet, storm.accepted),
        *([] if storm.stopping.is_set() else invariants.complete(fleet, storm.accepted)),
        *invariants.history(fleet),
        *invariants.attempts(fleet),
        *invariants.scores(fleet, storm.accepted, undisturbed),
        *invariants.responses(fleet, undisturbed, damaged=damaged),
    ]
    most = max(MOST_FAILED * len(storm.accepted), 2)
    if len(storm.failed) > most:
        broken.append(f"{len(storm.failed)} of {len(storm.accepted)} evaluations failed; at most {most:.0f} may")
    allowed = TICK_SECONDS + SLACK_SECONDS * max(1.0, disturbances.peak_load)
    if recovery.most_overdue.total_seconds() > allowed:
        broken.append(f"an attempt was given up {recovery.most_overdue} after its lease; {allowed:.0f} s were allowed")
    computed = invariants.computed(fleet, damaged=damaged)
    states: dict[str, int] = {}
    for one in storm.accepted:
        state = fleet.evaluation(one).state.value
        states[state] = states.get(state, 0) + 1
    return Report(
        seed=storm.seed,
        database=fleet.engine.dialect.name,
        storm=storm,
        broken=broken,
        recovery=recovery,
        computed=computed.total(),
        redone=computed.total() - len(computed),
        seconds=seconds,
        states=states,
        peak_load=disturbances.peak_load,
    )


def _fresh(server: Server, seed: int) -> str:
    name = f"storm_{seed}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return server.url(name)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="evalyard-faults-") as made:
            yield Path(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--keep", type=Path, help="a new folder for database, artifacts and logs, left there")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that nothing is left behind
    stopping = threading.Event()

    def interrupted(number: int, frame: object) -> None:
        if stopping.is_set():
            print("Ended: nothing was checked.")
            sys.exit(130)
        stopping.set()
        print("Stopping the storm, and checking what there is. Ctrl-C again ends at once.", flush=True)

    signal.signal(signal.SIGINT, interrupted)
    with ExitStack() as stack:
        server = stack.enter_context(running_server()) if given.database == "postgresql" else None
        folder = stack.enter_context(_folder(given.keep))
        report = run(folder, seed=given.seed, faults=given.faults, database=server, stopping=stopping)
        left = processes_with(f"{folder}/")
    report.broken.extend(f"left over: process {pid}: {command}" for pid, command in left.items())
    print(report)
    sys.exit(130 if stopping.is_set() else 1 if report.broken else 0)


if __name__ == "__main__":
    main()
