"""Finds the model that somebody named: a folder here, one of the mirror (EVALYARD_MODELS/org/name), or on the Hub.

Whatever the name is, what comes back is a repository at a pinned revision, or a fault in words.
"""

import functools
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from orchestrator import artifacts
from submissions.faults import SubmissionRefused
from submissions.repositories import (
    MOST_FILES,
    NETWORK_ERRORS,
    FolderRepository,
    HubRepository,
    Repository,
    away,
    gated,
    refused,
)
from submissions.words import shown

HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)


def open_model(
    name: str,
    revision: str | None = None,
    *,
    mirror: Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    field: str = "model",
) -> Repository:
    """The model at its pinned revision: an absolute folder, else the mirror's copy, else the Hub's repository.

    `field` names the form's field that faults belong to (`model` or `base_model`).

    Raises:
        SubmissionRefused: there is no such model or revision, or it may not be read.
        HubAway: the Hub does not answer and the model is in no mirror or cache.
    """
    name = name.strip()
    revision = (revision or "").strip() or None
    if not name:
        raise refused(field, "Name a model: a Hub id such as org/name, or the absolute path of a folder.")
    if Path(name).is_absolute():
        return _open_folder(Path(name), revision, field=field)
    if not HUB_NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise refused(
            field,
            f"'{shown(name)}' is neither a Hub id nor the absolute path of a folder. Write org/name or /path/to/it.",
        )
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise refused(
            _revision_field(field), f"'{shown(revision)}' is no revision. Use a branch, tag or commit from its page."
        )
    if mirror is not None and (mirror / name).is_dir():
        return _open_mirrored(mirror / name, name, revision, field=field)
    return _open_hub(name, revision, token=token, endpoint=endpoint, field=field)


def _open_folder(folder: Path, revision: str | None, *, field: str) -> Repository:
    try:
        is_there = folder.is_dir()
    except OSError as error:
        raise _unreadable(folder, error, field=field) from error
    if not is_there:
        raise refused(field, f"There is no folder {shown(str(folder), most=300)} on this machine. Check the path.")
    if not str(folder.resolve()).isprintable():
        # It will stand in pages, logs, terminals and shell commands.
        raise refused(
            field,
            f"The folder {shown(str(folder), most=300)} has characters in its path that cannot be shown. Rename it.",
        )
    digest = _digest(folder, field=field)
    if revision not in (None, digest):
        raise refused(
            _revision_field(field),
            f"The folder {shown(folder.name)} has no revision '{shown(revision or '')}': a folder is pinned by the "
            "digest of its files. Leave the revision out.",
        )
    folder = folder.resolve()
    return FolderRepository(folder, name=folder.name or "model", revision=digest)


def _open_mirrored(folder: Path, name: str, revision: str | None, *, field: str) -> Repository:
    digest = _digest(folder, field=field)
    if revision not in (None, "main", digest):
        raise refused(
            _revision_field(field),
            f"Model {name} comes from this site's mirror, which has no revision '{shown(revision or '')}' of it. "
            "Leave the revision out, or ask an operator to mirror that revision.",
        )
    return FolderRepository(folder.resolve(), name=name, revision=digest)


def _open_hub(name: str, revision: str | None, *, token: str | None, endpoint: str | None, field: str) -> Repository:
    api = HfApi(endpoint=endpoint, token=token or None)
    try:
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=20)
    except RevisionNotFoundError as error:
        raise refused(
            _revision_field(field),
            f"Model {name} has no revision '{shown(revision or 'main')}'. Use a branch, tag or commit from its page.",
        ) from error
    except GatedRepoError as error:
        raise gated(name, field=field) from error
    except RepositoryNotFoundError as error:
        raise refused(
            field,
            f"There is no model {name} on the Hub that this server may read. Check the spelling on its page; a private "
            "model needs a server token with access (EVALYARD_HUB_TOKEN).",
        ) from error
    except NETWORK_ERRORS as error:
        cached = _cached(name, revision)
        if cached is None:
            raise away(name) from error
        return FolderRepository(cached, name=name, revision=cached.name, is_cache=True)
    if info.sha is None:
        raise away(name)
    files = {sibling.rfilename: sibling.size or 0 for sibling in (info.siblings or [])[:MOST_FILES]}
    return HubRepository(api, name=info.id, revision=info.sha, files=files)


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of the Hub's local cache for this revision, when a download left one."""
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def _digest(folder: Path, *, field: str) -> str:
    try:
        return artifacts.model_folder_digest(folder, file_digest=_file_digest)
    except OSError as error:
        raise _unreadable(folder, error, field=field) from error


def _unreadable(folder: Path, error: OSError, *, field: str) -> SubmissionRefused:
    return refused(
        field,
        f"The folder {shown(str(folder), most=300)} cannot be read ({error.strerror}). Check path and permissions.",
    )


def _file_digest(path: Path) -> str:
    status = path.stat()
    return _digest_of_state(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_of_state(path: Path, size: int, modified_ns: int) -> str:
    """Weights are large: a file that has not changed since is not read again."""
    return artifacts.file_sha256(path)


def _revision_field(field: str) -> str:
    return "revision" if field == "model" else field
