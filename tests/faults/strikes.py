"""The faults of a storm, each made on a running fleet and ended after a while. Each says whether it hit anything."""

import os
import random
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from sqlalchemy import make_url

from tests.faults.disturbances import Disturbances
from tests.faults.post import Post, draw_kind
from tests.fleet import Fleet
from tests.postgres import Server
from tests.services import processes_with

CONTROLS = ("control", "control-2")
HARNESSES = ("harness", "harness-2")
ENGINES = ("engine", "engine-2", "engine-3")
PARTS = (*CONTROLS, *HARNESSES, *ENGINES)

KINDS: dict[str, float] = {
    "kill an engine worker": 8,
    "kill a harness worker": 4,
    "kill a control process": 3,
    "kill a stage": 6,
    "stop and continue an engine worker": 6,
    "stop and continue a harness worker": 3,
    "stop and continue a control process": 2,
    "stop and continue a stage": 5,
    "preempt an engine worker": 6,
    "end a harness worker": 3,
    "end a control process": 2,
    "flush the broker": 3,
    "kill the broker": 3,
    "kill the broker and its data": 2,
    "take the database away": 2,
    "take the artifact store away": 3,
    "damage a segment": 3,
    "a message twice": 7,
    "a message late": 7,
    "a message never": 5,
}
"""Kinds of faults with their weights."""


@dataclass
class Strikes:
    fleet: Fleet
    disturbances: Disturbances
    database: Server | None = None
    """PostgreSQL's server; None for SQLite, which is taken away by a writer that holds it."""
    damaged: set[str] = field(default_factory=set)
    """Keys of the segments that were damaged."""
    spared: frozenset[str] = frozenset()
    """Identities whose segments stay whole."""
    _busy: set[str] = field(default_factory=set)
    """What a fault has now, and no other may have."""
    _ends: dict[threading.Timer, Callable[[], None]] = field(default_factory=dict)
    _timers: list[threading.Timer] = field(default_factory=list)

    def make(self, kind: str, draw: random.Random) -> bool:
        """Make one fault of this kind; False when there is nothing to hit now."""
        lease = self.fleet.lease_seconds
        whom = CONTROLS if "control" in kind else HARNESSES if "harness" in kind else ENGINES
        # Shorter than the lease, which nobody should notice, or longer.
        long = draw.choice((draw.uniform(0.1, 0.5) * lease, draw.uniform(1.2, 1.6) * lease))
        match kind.split(" "):
            case ["kill", "a", "stage"]:
                return self._signal_stage(draw, signal.SIGKILL)
            case ["stop", *_, "stage"]:
                return self._signal_stage(draw, signal.SIGSTOP, seconds=draw.uniform(0.5, lease))
            case ["flush", *_]:
                return self._flush()
            case ["kill", "the", "broker", *rest]:
                return self._kill_broker(long / 2, forget=bool(rest))
            case ["take", "the", "database", *_]:
                return self._take_database(draw.uniform(0.2, 0.5) * lease)
            case ["take", "the", "artifact", *_]:
                return self._take_store(draw.uniform(0.3, 1.2) * lease)
            case ["damage", *_]:
                return self._damage(draw)
            case ["a", "message", how]:
                return self._tamper(how, draw, late=draw.uniform(0.1, 2.5) * lease)
            case ["stop", *_]:
                return self._stop(draw, whom, seconds=long)
            case [verb, *_]:
                number = signal.SIGKILL if verb == "kill" else signal.SIGTERM
                return self._end(draw, whom, number, down=draw.choice((0.0, long)))
        raise AssertionError(kind)

    def revive(self) -> None:
        """Start again what ended by itself, deaf or refused, as whatever keeps it alive does."""
        for name in PARTS:
            process = self.fleet.processes.get(name)
            if name not in self._busy and (process is None or process.poll() is not None):
                self._start(name)

    def calm(self) -> None:
        """End every fault that is under way, now."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()
            self._finish(timer)
        for timer in timers:
            timer.join()
        self.revive()

    # What has an end

    def _after(self, seconds: float, end: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, lambda: self._finish(timer))
        timer.daemon = True
        self._ends[timer] = end
        self._timers.append(timer)
        timer.start()

    def _finish(self, timer: threading.Timer) -> None:
        end = self._ends.pop(timer, None)
        if end is not None:
            end()

    # Processes

    def _free(self, draw: random.Random, whom: Sequence[str]) -> str | None:
        names = [name for name in whom if name not in self._busy and self.fleet.processes[name].poll() is None]
        return draw.choice(names) if names else None

    def _start(self, name: str) -> None:
        if name in CONTROLS:
            self.disturbances.starting(name)
        self.fleet.start(name)

    def _end(self, draw: random.Random, whom: Sequence[str], number: int, *, down: float) -> bool:
        name = self._free(draw, whom)
        if name is None:
            return False
        self._busy.add(name)
        if name in CONTROLS:
            self.disturbances.begin("down", name)
        process = self.fleet.processes[name]
        process.send_signal(number)

        def start_again() -> None:
            # One that was asked to end seals first. It is not waited for longer than a supervisor would.
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            if process.poll() is None:
                process.kill()
                process.wait()
            self._start(name)
            self._busy.discard(name)

        self._after(down, start_again)
        return True

    def _stop(self, draw: random.Random, whom: Sequence[str], *, seconds: float) -> bool:
        name = self._free(draw, whom)
        if name is None:
            return False
        self._busy.add(name)
        if name in CONTROLS:
            # It may stand still inside a transaction, and then the other one waits for it.
            self.disturbances.begin(f"{name} stands still")
        self.fleet.processes[name].send_signal(signal.SIGSTOP)

        def go_on() -> None:
            self.fleet.processes[name].send_signal(signal.SIGCONT)
            self._busy.discard(name)
            if name in CONTROLS:
                self.disturbances.end(f"{name} stands still")

        self._after(seconds, go_on)
        return True

    def stages(self) -> list[int]:
        """Process ids of the stage programs of all workers."""
        found = processes_with(str(self.fleet.folder / "scratch"))
        return sorted(
            pid for pid, command in found.items() if "workers.engine.infer" in command or "workers.harness." in command
        )

    def _signal_stage(self, draw: random.Random, number: int, *, seconds: float = 0.0) -> bool:
        stages = self.stages()
        if not stages:
            return False
        pid = draw.choice(stages)

        def send(which: int) -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, which)

        send(number)
        if number == signal.SIGSTOP:
            self._after(seconds, lambda: send(signal.SIGCONT))
        return True

    # Services

    def _flush(self) -> bool:
        if "broker" in self._busy:
            return False
        try:
            Post(self.fleet.broker.url).flush()
        except redis.RedisError:
            return False
        return True

    def _kill_broker(self, down: float, *, forget: bool) -> bool:
        if "broker" in self._busy:
            return False
        self._busy.add("broker")
        self.disturbances.begin("broker")
        self.fleet.broker.kill()

        def start() -> None:
            if forget:
                self.fleet.broker.forget()
            self.fleet.broker.start()
            self._busy.discard("broker")
            self.disturbances.end("broker")

        self._after(down, start)
        return True

    def _take_database(self, down: float) -> bool:
        """Without it the storm itself sees and does nothing, so it waits."""
        self.disturbances.begin("database")
        if self.database is not None:
            self.database.stop()
            threading.Event().wait(down)
            self.database.start()
        else:
            holder = sqlite3.connect(str(make_url(self.fleet.database_url).database), isolation_level=None, timeout=60)
            holder.execute("BEGIN IMMEDIATE")
            threading.Event().wait(down)
            holder.execute("ROLLBACK")
            holder.close()
        self.disturbances.end("database")
        return True

    def _take_store(self, down: float) -> bool:
        """The store is a link to its folder, so that it goes and comes back in one step."""
        if "store" in self._busy:
            return False
        self._busy.add("store")
        nothing = self.fleet.folder / "nothing"
        nothing.touch()
        link_store(self.fleet, nothing)

        def back() -> None:
            link_store(self.fleet, kept(self.fleet))
            self._busy.discard("store")

        self._after(down, back)
        return True

    def _damage(self, draw: random.Random) -> bool:
        found = [
            path
            for path in sorted(kept(self.fleet).glob("responses/*/*/*.zst"))
            if path.parent.parent.name not in self.spared
        ]
        fresh = [path for path in found if path.relative_to(kept(self.fleet)).as_posix() not in self.damaged]
        if not fresh:
            return False
        path = draw.choice(fresh)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 0xFF
        path.write_bytes(data)
        self.damaged.add(path.relative_to(kept(self.fleet)).as_posix())
        return True

    def _tamper(self, how: str, draw: random.Random, *, late: float) -> bool:
        if "broker" in self._busy:
            return False
        post = Post(self.fleet.broker.url)
        workers = [f"{name.partition('-')[0]}-{name.partition('-')[2] or 1}" for name in (*HARNESSES, *ENGINES)]
        try:
            found = post.steal(draw_kind(draw), workers)
        except redis.RedisError:
            return False
        if found is None:
            return False
        if how == "twice":
            post.deliver(*found)
        if how != "never":
            self._after(late, lambda: post.deliver(*found))
        return True


def kept(fleet: Fleet) -> Path:
    """The folder that the store's link leads to."""
    return fleet.folder / "kept"


def link_store(fleet: Fleet, target: Path) -> None:
    """Let the store be this, in one step."""
    fresh = fleet.folder / "artifacts.new"
    fresh.symlink_to(target)
    fresh.replace(fleet.folder / "artifacts")
