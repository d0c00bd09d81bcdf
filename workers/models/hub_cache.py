"""The folder of this host's downloads from the Hub, kept within a budget: what was used longest ago goes out first.

`hub/` in it is a cache of huggingface_hub's own layout, scanned and cleaned by its own functions;
`workers.models.marks` says what else is there. Every worker process of the host shares it. What lies elsewhere (local
folders, mirrors, the user's own cache) is never touched and never noted, and neither is what is in use or being fetched
deleted.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import CachedRepoInfo, CachedRevisionInfo, HFCacheInfo
from huggingface_hub.file_download import repo_folder_name

from orchestrator.wire import FailureKind
from orchestrator.words import size
from workers.models.downloads import (
    THREADS,
    DiskFull,
    Listed,
    ModelUnavailable,
    Wanted,
    download,
    in_the_users_cache,
    listing,
)
from workers.models.marks import Facts, Marks, Use

log = logging.getLogger(__name__)

SPARED_SECONDS = 300.0
"""What was used or expected since then does not go out for a model that nobody waits for yet."""

MOST_KEPT_FREE = 20 * 10**9

MOST_OTHER_BYTES = 2 * 10**9
"""Config, tokenizer and templates of a model take no more: the largest known take some tens of megabytes."""


class NoRoom(ModelUnavailable):
    """There is no room for the model now: what could go out is in use."""


def kept_free(disk_bytes: int) -> int:
    """How much of a disk stays free where no budget is set: a tenth, and never more than 20 GB."""
    return min(disk_bytes // 10, MOST_KEPT_FREE)


class _Evictable(NamedTuple):
    needed_at: float
    repo: CachedRepoInfo
    revision: CachedRevisionInfo


class _Need(NamedTuple):
    wanted: Wanted
    missing: int
    ahead: bool
    disk_is_full: bool


class HubCache:
    def __init__(self, folder: Path, *, limit: int | None) -> None:
        """`limit`: bytes that downloads may take; without one, `kept_free` of the disk stays free."""
        self.hub = folder / "hub"
        self._marks = Marks(folder)
        self._limit = limit
        self._elsewhere: dict[str, Path] = {}
        """Revisions that were found whole, with weights, in the user's own cache."""

    def fetch(self, wanted: Wanted, *, token: str | None, ahead: bool = False) -> tuple[Path, Use]:
        """The snapshot, and its use: the caller closes that when it needs the files no more.

        `ahead`: nobody waits for it yet, so one file comes after the other, and nothing goes out that someone used or
        expected a few minutes ago: workers that fetch ahead would else delete each other's.

        Raises:
            ModelUnavailable: it cannot be had; NoRoom: not now.
        """
        use = self._marks.use(wanted.revision, wanted.name, ahead=ahead)
        try:
            found = self._whole(wanted) or self._find_elsewhere(wanted, token)
            if found is None:
                found = self._download(wanted, token, ahead=ahead)
                with self._marks.alone():
                    self._marks.settle(use)
        except BaseException:
            try:
                with self._marks.alone():
                    self._marks.settle(use)
            finally:
                use.close()
            raise
        return found, use

    def weights(self, most: int) -> list[str]:
        """Commits whose weights are here, those used last first; what was only fetched ahead comes last."""
        elsewhere = {commit for commit, folder in list(self._elsewhere.items()) if folder.is_dir()}
        known = self._marks.all()
        return [commit for commit, facts in known if (facts.files and facts.weights) or commit in elsewhere][:most]

    def has_weights(self, revision: str) -> bool:
        facts = self._marks.facts(revision)
        if revision in self._elsewhere:
            return self._elsewhere[revision].is_dir()
        return self._whole(Wanted(facts.name, revision, weights=True)) is not None

    def expect(self, revisions: Sequence[str]) -> None:
        """Let revisions that are here go out late, because they soon will be used; the last of these first."""
        for revision in reversed(revisions):
            self._marks.expect(revision)

    def _whole(self, wanted: Wanted) -> Path | None:
        """The snapshot, if a download of it ended well here and nothing is lost since."""
        facts = self._marks.facts(wanted.revision)
        if facts.name != wanted.name or not facts.files or (wanted.weights and not facts.weights):
            return None
        folder = self._snapshot(wanted)
        return folder if _sizes(folder, facts.files) == facts.files else None

    def _find_elsewhere(self, wanted: Wanted, token: str | None) -> Path | None:
        found = in_the_users_cache(wanted, token=token)
        self._elsewhere.pop(wanted.revision, None)
        if found is not None and wanted.weights:
            self._elsewhere[wanted.revision] = found
        return found

    def _download(self, wanted: Wanted, token: str | None, *, ahead: bool) -> Path:
        threads = 1 if ahead else THREADS
        files = self._make_room_for(wanted, token, ahead=ahead)
        try:
            found = download(wanted, files, token=token, cache=self.hub, threads=threads)
        except DiskFull:
            log.warning("the disk is full: making room for %s once more", wanted.name)
            files = self._make_room_for(wanted, token, ahead=ahead, disk_is_full=True)
            found = download(wanted, files, token=token, cache=self.hub, threads=threads)
        with self._marks.alone():
            if self._whole(wanted) is None:
                coming = self._marks.facts(wanted.revision).coming
                sizes = _sizes(found, [file.name for file in files])
                self._marks.note(wanted.revision, Facts(wanted.name, sizes, wanted.weights, coming))
        return found

    def _make_room_for(
        self, wanted: Wanted, token: str | None, *, ahead: bool, disk_is_full: bool = False
    ) -> list[Listed]:
        """Let go what was used longest ago, until what is missing of the snapshot fits; returns the snapshot's files.

        Raises:
            NoRoom, ModelUnavailable: it would not fit; then nothing was deleted.
        """
        while True:
            files = listing(wanted, token=token, cache=self.hub)
            _check_others(wanted.name, files)
            missing = sum(file.size for file in files if file.missing)
            if not missing:
                return files
            with self._marks.alone():
                deleted = self._make_room(_Need(wanted, missing, ahead, disk_is_full))
            disk_is_full = False
            # Revisions share files: one that went out may have held what this one was thought to have.
            if wanted.name not in deleted:
                return files

    def _make_room(self, need: _Need) -> set[str]:
        """One round of it; returns the repositories that lost a revision."""
        wanted, missing = need.wanted, need.missing
        held = self._marks.held()
        kept = self._scan()
        self._delete_leftovers(kept, held)
        sizes = {revision.commit_hash: revision.size_on_disk for repo in kept.repos for revision in repo.revisions}
        others = {commit: facts for commit, facts in held.items() if commit != wanted.revision}
        coming = sum(max(0, facts.coming - sizes.get(commit, 0)) for commit, facts in others.items())
        room = 0 if need.disk_is_full else self._room(kept, coming)
        candidates = self._candidates(kept, held, need)
        freed = kept.delete_revisions(*(one.revision.commit_hash for one in candidates)).expected_freed_size
        whole = sizes.get(wanted.revision, 0) + missing
        if room + freed < missing:
            # A tokenizer is small: it has room as long as the disk has, and nothing would be won by deleting for it.
            if wanted.weights or need.disk_is_full or shutil.disk_usage(self.hub).free < missing:
                in_use = coming + sum(sizes.get(commit, 0) for commit in others)
                raise self._refusal(need, whole, for_now=in_use > 0 and room + freed + in_use >= missing)
            candidates = []
        deleted = set()
        for one in candidates:
            if room >= missing:
                break
            room += self._delete(one)
            deleted.add(one.repo.repo_id)
        mine = self._marks.facts(wanted.revision)
        self._marks.note(wanted.revision, Facts(mine.name, mine.files, mine.weights, max(whole, mine.coming)))
        return deleted

    def _candidates(self, kept: HFCacheInfo, held: Mapping[str, Facts], need: _Need) -> list[_Evictable]:
        """What may go out, the first of all first."""
        found = sorted(self._evictable(kept, {*held, need.wanted.revision}), key=lambda one: one.needed_at)
        if need.ahead:
            found = [one for one in found if one.needed_at < time.time() - SPARED_SECONDS]
        # What may share files with the wanted revision goes out last of all.
        return sorted(found, key=lambda one: one.repo.repo_id == need.wanted.name)

    def _evictable(self, kept: HFCacheInfo, held: set[str]) -> Iterator[_Evictable]:
        for repo in kept.repos:
            for revision in repo.revisions if repo.repo_type == "model" else ():
                commit = revision.commit_hash
                if commit not in held:
                    used_at = self._marks.used_at(commit)
                    used_at = revision.last_modified if used_at is None else used_at
                    yield _Evictable(max(used_at, self._marks.expected_at(commit)), repo, revision)

    def _delete(self, one: _Evictable) -> int:
        """Bytes that were freed. This may end in the middle: what is half deleted must count as whole no more."""
        commit = one.revision.commit_hash
        log.info("deleting %s at %s: used longest ago", one.repo.repo_id, commit[:12])
        self._marks.forget(commit)
        plan = self._scan().delete_revisions(commit)
        plan.execute()
        self._marks.delete(commit)
        return plan.expected_freed_size

    def _delete_leftovers(self, kept: HFCacheInfo, held: Mapping[str, Facts]) -> None:
        """Parts that a killed process was fetching or deleting: nobody takes them up, and the scan counts them not."""
        fetched = {repo_folder_name(repo_id=facts.name, repo_type="model") for facts in held.values()}
        for file in kept.incomplete_files:
            if file.file_path.parent.parent.name not in fetched:
                file.file_path.unlink(missing_ok=True)
        known = {repo.repo_path.name: repo for repo in kept.repos if repo.revisions}
        for folder in self.hub.glob("models--*"):
            if folder.name in fetched:
                continue
            repo = known.get(folder.name)
            if repo is None:
                for commit, facts in self._marks.all():
                    if repo_folder_name(repo_id=facts.name, repo_type="model") == folder.name:
                        self._marks.forget(commit)
                log.info("deleting %s: it is damaged, and nobody uses it", folder.name)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            used = {file.blob_path.name for revision in repo.revisions for file in revision.files}
            for blob in (folder / "blobs").glob("*"):
                if blob.name not in used and blob.is_file() and not blob.is_symlink():
                    blob.unlink(missing_ok=True)

    def _room(self, kept: HFCacheInfo, coming: int) -> int:
        """Bytes that may be fetched now, beside those that others are fetching."""
        disk = shutil.disk_usage(self.hub)
        written = sum(file.size_on_disk for file in kept.incomplete_files)
        free = disk.free - max(0, coming - written)
        if self._limit is None:
            return free - kept_free(disk.total)
        return min(free, self._limit - kept.size_on_disk - coming)

    def _refusal(self, need: _Need, whole: int, *, for_now: bool) -> ModelUnavailable:
        """`for_now`: it would fit, if it were not for what is in use."""
        name, missing = need.wanted.name, need.missing
        if self._limit is not None and whole > self._limit and need.wanted.weights:
            return ModelUnavailable(
                FailureKind.TOO_LARGE,
                f"Model {name} takes {size(whole)}, and this worker keeps no more than {size(self._limit)} "
                "of downloaded weights. Raise EVALYARD_WORKER_WEIGHTS_BYTES there if its disk has the room, then "
                "retry.",
            )
        disk = shutil.disk_usage(self.hub)
        if whole > disk.total - kept_free(disk.total):
            return ModelUnavailable(
                FailureKind.TOO_LARGE,
                f"Model {name} takes {size(whole)}, and this worker's disk holds {size(disk.total)}. Let "
                "weights lie on a larger one (EVALYARD_WORKER_WEIGHTS), then retry.",
            )
        refusal = NoRoom if for_now else ModelUnavailable
        if need.disk_is_full:
            return refusal(
                FailureKind.STORAGE,
                f"The worker's disk is full: {size(missing)} of model {name} are missing, and there are no other "
                "downloads that could be deleted. Free some of it, or let weights lie on another "
                "(EVALYARD_WORKER_WEIGHTS), and retry.",
            )
        budget = "the disk" if self._limit is None else f"the {size(self._limit)} for downloads"
        return refusal(
            FailureKind.STORAGE,
            f"The {size(missing)} that are missing of model {name} find no room: running evaluations and other "
            f"things take too much of {budget} ({size(disk.free)} of the disk are free). It is tried again by "
            "itself; EVALYARD_WORKER_WEIGHTS_BYTES sets how much downloads may take.",
        )

    def _snapshot(self, wanted: Wanted) -> Path:
        return self.hub / repo_folder_name(repo_id=wanted.name, repo_type="model") / "snapshots" / wanted.revision

    def _scan(self) -> HFCacheInfo:
        self.hub.mkdir(parents=True, exist_ok=True)
        return huggingface_hub.scan_cache_dir(self.hub)


def _check_others(name: str, files: Sequence[Listed]) -> None:
    """Refuse a repository whose files beside the weights would fill the disk.

    Raises:
        ModelUnavailable: they take more than a model's ever do.
    """
    others = [file for file in files if not file.name.endswith(".safetensors")]
    whole = sum(file.size for file in others)
    if whole > MOST_OTHER_BYTES:
        largest = max(others, key=lambda file: file.size)
        raise ModelUnavailable(
            FailureKind.TOO_LARGE,
            f"The files of model {name} beside its weights take {size(whole)}, most of it {largest.name}, and a "
            f"worker fetches at most {size(MOST_OTHER_BYTES)} of such. Take what is no part of the model out of "
            "the repository and submit it again.",
        )


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes of those of the files that are there."""
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
