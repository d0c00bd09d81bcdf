"""What a host knows of the revisions in its folder of downloads, and the locks by which its processes share them.

    marks/<commit>     facts of a revision; its time is that of the last use. Whoever uses or fetches it shares its lock
    expected/<commit>  its time is when the revision was last said to be needed soon
    lock               held by whoever makes room, or begins or notes something of a revision

A lock ends with its process, however that ends. Marks are written in place, under `alone`: a file put in their place
would have a lock of its own. What was not written whole cannot be read, and says nothing.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from orchestrator.artifacts import slug
from orchestrator.wire import FailureKind
from workers.models.downloads import ModelUnavailable


@dataclass(frozen=True)
class Facts:
    """What is noted of a revision."""

    name: str = ""
    """Its repository."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Names and bytes of what a download that ended well left here; none until then."""
    weights: bool = False
    """The safetensors are among them."""
    coming: int = 0
    """Bytes that it will have here when the fetch under way ends."""


class Use:
    """A revision that may not be deleted until this is closed; closed by the end of the process, too."""

    def __init__(self, file: IO[bytes], revision: str, *, counts: bool) -> None:
        self.revision = revision
        self._file = file
        self._counts = counts

    def close(self) -> None:
        if not self._file.closed:
            if self._counts:
                _touch(self._file.fileno())
            self._file.close()

    def is_the_only_one(self) -> bool:
        """Whether nobody else uses or fetches the revision; to be asked under `Marks.alone`."""
        alone = _flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _flock(self._file, fcntl.LOCK_SH)
        return alone


class Marks:
    def __init__(self, folder: Path) -> None:
        self._marks = folder / "marks"
        self._expected = folder / "expected"
        self._lock = folder / "lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else of the host is in such a block; it may not be entered within itself."""
        self._marks.mkdir(parents=True, exist_ok=True)
        # NFS gives a shared lock only to who may read the file, and an exclusive one only to who may write it.
        with self._lock.open("a+b") as file:
            _flock(file, fcntl.LOCK_EX)
            yield

    def use(self, revision: str, name: str, *, ahead: bool) -> Use:
        """Begin to use or fetch a revision; `ahead` of any need, that counts as expected and not as used."""
        with self.alone():
            mark = self._mark(revision)
            new = not mark.exists()
            file = mark.open("a+b")
            try:
                _flock(file, fcntl.LOCK_SH)
                use = Use(file, revision, counts=not ahead)
                if new and ahead:
                    os.utime(mark, (0, 0))
                if not ahead:
                    _touch(mark)
                self.settle(use, name=name)
                if ahead:
                    self.expect(revision)
            except BaseException:
                file.close()
                raise
        return use

    def settle(self, use: Use, *, name: str = "") -> None:
        """Forget the room that a fetch was given, unless another fetches or uses the same; under `alone`."""
        facts = self.facts(use.revision)
        coming = 0 if use.is_the_only_one() else facts.coming
        self.note(use.revision, Facts(name or facts.name, facts.files, facts.weights, coming))

    def facts(self, revision: str) -> Facts:
        return _read(self._mark(revision))

    def note(self, revision: str, facts: Facts) -> None:
        """Let a mark say this, under `alone`. Its time stays that of its last use."""
        mark = self._mark(revision)
        if facts == _read(mark):
            return
        before = mark.stat()
        with mark.open("r+b") as file:
            file.truncate(0)
            file.write(json.dumps(asdict(facts)).encode())
            file.flush()
            os.fsync(file.fileno())
        os.utime(mark, ns=(before.st_atime_ns, before.st_mtime_ns))

    def forget(self, revision: str) -> None:
        """From now on nobody takes the revision for whole, even if the power fails; under `alone`."""
        facts = self.facts(revision)
        if self._mark(revision).is_file():
            self.note(revision, Facts(facts.name))

    def delete(self, revision: str) -> None:
        self._mark(revision).unlink(missing_ok=True)
        (self._expected / slug(revision)).unlink(missing_ok=True)

    def held(self) -> dict[str, Facts]:
        """Commits in use by anyone, with what is noted of them; under `alone`."""
        found = {}
        for mark in self._marks.iterdir():
            with mark.open("r+b") as file:
                if not _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    found[mark.name] = _read(mark)
        return found

    def all(self) -> list[tuple[str, Facts]]:
        """Every known commit with what is noted of it, those used last first."""
        found = []
        for mark in self._marks.iterdir() if self._marks.is_dir() else ():
            facts = _read(mark)
            found.append((self.used_at(mark.name) or 0.0, mark.name, facts))
        return [(commit, facts) for _, commit, facts in sorted(found, key=lambda one: one[:2], reverse=True)]

    def used_at(self, revision: str) -> float | None:
        """When a revision was last used; None for one that has no mark."""
        return _time_of(self._mark(revision))

    def expect(self, revision: str) -> None:
        """Let a revision that is known here count as wanted soon."""
        if self._mark(revision).is_file():
            self._expected.mkdir(exist_ok=True)
            expected = self._expected / slug(revision)
            expected.touch()
            _touch(expected)

    def expected_at(self, revision: str) -> float:
        """When a revision was last said to be wanted soon; 0 for never."""
        return _time_of(self._expected / slug(revision)) or 0.0

    def _mark(self, revision: str) -> Path:
        return self._marks / slug(revision)


def _flock(file: IO[bytes], how: int) -> bool:
    """Whether the lock was had.

    Raises:
        ModelUnavailable: there are no locks on this disk.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ModelUnavailable(
            FailureKind.STORAGE,
            f"{file.name} cannot be locked ({error.strerror}), and without locks a worker might delete what another "
            "uses. Let weights lie on a disk with file locks (EVALYARD_WORKER_WEIGHTS), then retry.",
        ) from error
    return True


def _touch(file: Path | int) -> None:
    now = time.time_ns()  # the system's own idea of now is that of its last tick
    os.utime(file, ns=(now, now))


def _time_of(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return None


def _read(mark: Path) -> Facts:
    try:
        found = Facts(**json.loads(mark.read_bytes() or b"{}"))
    except (OSError, ValueError, TypeError):
        return Facts()
    plain = (found.name, str), (found.files, dict), (found.weights, bool), (found.coming, int)
    return found if all(isinstance(value, kind) for value, kind in plain) else Facts()
