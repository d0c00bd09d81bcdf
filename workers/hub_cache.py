"""The folder of this host's downloads from the Hub, kept within a budget: what was used longest ago goes out first.

    hub/            a cache of huggingface_hub's own layout, scanned and cleaned by its own functions
    marks/<commit>  when a revision was last used (its time), and a lock that whoever uses or fetches it shares
    lock            held by whoever makes room or begins to use a revision

Every worker process of the host shares it, and a lock ends with its process, however that ends. What lies elsewhere
(local folders, mirrors, the user's own cache) is never touched, and neither is what is in use or being fetched.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub import CachedRepoInfo, CachedRevisionInfo, HFCacheInfo

from orchestrator.artifacts import slug
from orchestrator.wire import FailureKind
from workers.downloads import (
    THREADS,
    DiskFull,
    ModelUnavailable,
    Wanted,
    download,
    in_the_users_cache,
    missing_bytes,
    on_disk,
)

log = logging.getLogger(__name__)

SPARED_SECONDS = 300.0
"""What was used or expected since then does not go out for a model that nobody waits for yet."""

MOST_KEPT_FREE = 20 * 10**9


class NoRoom(ModelUnavailable):
    """There is no room for the model now: what could go out is in use."""


def kept_free(disk_bytes: int) -> int:
    """How much of a disk stays free where no budget is set: a tenth, and never more than 20 GB."""
    return min(disk_bytes // 10, MOST_KEPT_FREE)


class Use:
    """A revision that may not be deleted until this is closed; closed by the end of the process, too."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark
        self._file = mark.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        _touch(mark)

    def close(self) -> None:
        if not self._file.closed:
            _touch(self._mark)
            self._file.close()


class _Evictable(NamedTuple):
    used_at: float
    repo: CachedRepoInfo
    revision: CachedRevisionInfo


class HubCache:
    def __init__(self, folder: Path, *, limit: int | None) -> None:
        """`limit`: bytes that downloads may take; without one, `kept_free` of the disk stays free."""
        self.hub = folder / "hub"
        self._marks = folder / "marks"
        self._lock = folder / "lock"
        self._limit = limit

    def fetch(self, wanted: Wanted, *, token: str | None, ahead: bool = False) -> tuple[Path, Use]:
        """The snapshot, and its use: the caller closes that when it needs the files no more.

        `ahead`: nobody waits for it yet, so one file comes after the other, and nothing goes out that someone used or
        expected a few minutes ago: workers that fetch ahead would else delete each other's.

        Raises:
            ModelUnavailable: it cannot be had; NoRoom: not now.
        """
        use = self._use(wanted.revision)
        threads = 1 if ahead else THREADS
        try:
            found = self._whole(wanted) or in_the_users_cache(wanted, token=token)
            if found is None:
                asked = self._make_room_for(wanted, token, ahead=ahead)
                try:
                    found = download(wanted, token=token, cache=self.hub, threads=threads)
                except DiskFull:
                    log.warning("the disk is full: making room for %s once more", wanted.name)
                    self._make_room_for(wanted, token, ahead=ahead, disk_is_full=True)
                    found = download(wanted, token=token, cache=self.hub, threads=threads)
                if not asked:
                    return found, use  # the Hub is away, and nobody knows whether that is all
            with self._alone():
                self._note(
                    wanted, whole=True, weights=wanted.weights or _read(self._mark(wanted.revision)).get("weights")
                )
        except BaseException:
            use.close()
            raise
        return found, use

    def weights(self, most: int) -> list[str]:
        """Commits whose weights are here, those used last first."""
        found = []
        for mark in self._marks.iterdir() if self._marks.is_dir() else ():
            try:
                if _read(mark).get("weights"):
                    found.append((mark.stat().st_mtime, mark.name))
            except OSError:
                continue  # deleted in this moment
        return [commit for _, commit in sorted(found, reverse=True)[:most]]

    def has_weights(self, revision: str) -> bool:
        return bool(_read(self._mark(revision)).get("weights"))

    def touch(self, revision: str) -> None:
        """Let a revision that is here count as used now, because it soon will be."""
        mark = self._mark(revision)
        if mark.is_file():
            _touch(mark)

    def _whole(self, wanted: Wanted) -> Path | None:
        """The snapshot, if a download of it ended well here: half of one looks the same to who asks the folder."""
        facts = _read(self._mark(wanted.revision))
        if not facts.get("weights" if wanted.weights else "whole"):
            return None
        return on_disk(wanted, cache=self.hub)

    def _use(self, revision: str) -> Use:
        with self._alone():
            return Use(self._mark(revision))

    def _make_room_for(self, wanted: Wanted, token: str | None, *, ahead: bool, disk_is_full: bool = False) -> bool:
        """Let go what was used longest ago, until what is missing of the snapshot fits; False when the Hub is away.

        Raises:
            NoRoom, ModelUnavailable: it would not fit; then nothing was deleted.
        """
        while missing := missing_bytes(wanted, token=token, cache=self.hub):
            with self._alone():
                deleted = self._make_room(wanted, missing, ahead=ahead, disk_is_full=disk_is_full)
            disk_is_full = False
            # Revisions share files: one that went out may have held what this one was thought to have.
            if wanted.name not in deleted:
                break
        return missing is not None

    def _make_room(self, wanted: Wanted, missing: int, *, ahead: bool, disk_is_full: bool) -> set[str]:
        """One round of it; returns the repositories that lost a revision."""
        held = self._held()
        kept = self._scan()
        self._delete_leftovers(kept, held)
        sizes = {revision.commit_hash: revision.size_on_disk for repo in kept.repos for revision in repo.revisions}
        whole = sizes.get(wanted.revision, 0) + missing
        self._note(wanted, bytes=max(whole, held.get(wanted.revision, {}).get("bytes", 0)))
        others = {commit: facts for commit, facts in held.items() if commit != wanted.revision}
        coming = sum(max(0, facts.get("bytes", 0) - sizes.get(commit, 0)) for commit, facts in others.items())
        room = 0 if disk_is_full else self._room(kept, coming)
        candidates = sorted(self._evictable(kept, {*held, wanted.revision}), key=lambda one: one.used_at)
        if ahead:
            candidates = [one for one in candidates if one.used_at < time.time() - SPARED_SECONDS]
        # What may share files with the wanted revision goes out last of all.
        candidates.sort(key=lambda one: one.repo.repo_id == wanted.name)
        freed = kept.delete_revisions(*(one.revision.commit_hash for one in candidates)).expected_freed_size
        if room + freed < missing:
            if wanted.weights or disk_is_full:
                raise self._refusal(wanted, missing, whole, disk_is_full=disk_is_full)
            return set()  # a tokenizer is small, and nothing would be won by deleting for it
        deleted = set()
        for one in candidates:
            if room >= missing:
                break
            plan = self._scan().delete_revisions(one.revision.commit_hash)
            log.info("deleting %s at %s: used longest ago", one.repo.repo_id, one.revision.commit_hash[:12])
            plan.execute()
            self._mark(one.revision.commit_hash).unlink(missing_ok=True)
            room += plan.expected_freed_size
            deleted.add(one.repo.repo_id)
        return deleted

    def _room(self, kept: HFCacheInfo, coming: int) -> int:
        """Bytes that may be fetched now, beside those that others are fetching."""
        disk = shutil.disk_usage(self.hub)
        written = sum(file.size_on_disk for file in kept.incomplete_files)
        free = disk.free - max(0, coming - written)
        if self._limit is None:
            return free - kept_free(disk.total)
        return min(free, self._limit - kept.size_on_disk - coming)

    def _refusal(self, wanted: Wanted, missing: int, whole: int, *, disk_is_full: bool) -> ModelUnavailable:
        name = wanted.name
        if self._limit is not None and whole > self._limit:
            return ModelUnavailable(
                FailureKind.TOO_LARGE,
                f"Model {name} takes {_gigabytes(whole)}, and this worker keeps no more than {_gigabytes(self._limit)} "
                "of downloaded weights. Raise EVALYARD_WORKER_WEIGHTS_BYTES there if its disk has the room, then "
                "retry.",
            )
        disk = shutil.disk_usage(self.hub)
        if whole > disk.total - kept_free(disk.total):
            return ModelUnavailable(
                FailureKind.TOO_LARGE,
                f"Model {name} takes {_gigabytes(whole)}, and this worker's disk holds {_gigabytes(disk.total)}. Let "
                "weights lie on a larger one (EVALYARD_WORKER_WEIGHTS), then retry.",
            )
        if disk_is_full:
            return NoRoom(
                FailureKind.STORAGE,
                f"The worker's disk is full: {_gigabytes(missing)} of model {name} are missing, and there are no other "
                "downloads that could be deleted. Free some of it, or let weights lie on another "
                "(EVALYARD_WORKER_WEIGHTS), and retry.",
            )
        budget = "the disk" if self._limit is None else f"the {_gigabytes(self._limit)} for downloads"
        return NoRoom(
            FailureKind.STORAGE,
            f"The {_gigabytes(missing)} that are missing of model {name} find no room: running evaluations and other "
            f"things take too much of {budget} ({_gigabytes(disk.free)} of the disk are free). It is tried again by "
            "itself; EVALYARD_WORKER_WEIGHTS_BYTES sets how much downloads may take.",
        )

    def _evictable(self, kept: HFCacheInfo, held: set[str]) -> Iterator[_Evictable]:
        for repo in kept.repos:
            for revision in repo.revisions if repo.repo_type == "model" else ():
                if revision.commit_hash not in held:
                    mark = self._mark(revision.commit_hash)
                    used_at = mark.stat().st_mtime if mark.is_file() else revision.last_modified
                    yield _Evictable(used_at, repo, revision)

    def _delete_leftovers(self, kept: HFCacheInfo, held: dict[str, dict[str, Any]]) -> None:
        """Parts of files that a killed process was fetching: no download ever takes them up again."""
        fetched = {"models--" + str(facts.get("name", "")).replace("/", "--") for facts in held.values()}
        for file in kept.incomplete_files:
            if file.file_path.parent.parent.name not in fetched:
                file.file_path.unlink(missing_ok=True)

    def _held(self) -> dict[str, dict[str, Any]]:
        """Commits in use by anyone, with what is noted of them."""
        found = {}
        for mark in self._marks.iterdir():
            with mark.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    found[mark.name] = _read(mark)
        return found

    def _note(self, wanted: Wanted, **facts: Any) -> None:
        """Add to what a mark says. Its time is that of its last use, and writing it is one."""
        mark = self._mark(wanted.revision)
        mark.write_text(json.dumps(_read(mark) | {"name": wanted.name} | facts))

    def _scan(self) -> HFCacheInfo:
        self.hub.mkdir(parents=True, exist_ok=True)
        return huggingface_hub.scan_cache_dir(self.hub)

    def _mark(self, revision: str) -> Path:
        return self._marks / slug(revision)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._marks.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _touch(mark: Path) -> None:
    now = time.time_ns()  # the system's own idea of now is that of its last tick
    os.utime(mark, ns=(now, now))


def _read(mark: Path) -> dict[str, Any]:
    try:
        facts = json.loads(mark.read_bytes() or b"{}")
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _gigabytes(number: int) -> str:
    return f"{number / 10**9:.1f} GB" if number >= 10**8 else f"{number / 10**6:.1f} MB"
