"""Finds the model that somebody named: a folder here, one of the mirror (EVALYARD_MODELS/org/name), or on the Hub.

Whatever the name is, what comes back is a repository at a pinned revision, or a fault in words.
"""

import difflib
import functools
import itertools
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from orchestrator import artifacts
from submissions.faults import Fault, HubAway, NotReadable, SubmissionRefused
from submissions.repositories import (
    MOST_FILES,
    NETWORK_ERRORS,
    REQUEST_SECONDS,
    FolderRepository,
    HubRepository,
    Repository,
    away,
    gated,
    is_final,
    refused,
)
from submissions.words import shown

MOST_TAGS = 200
MOST_MIRRORED = 2000
"""Models of a mirror among which one with a name like another's is looked for."""
UNANSWERED: tuple[type[Exception], ...] = (*NETWORK_ERRORS, ValueError)
"""What comes of a Hub that answers nothing, an error, or what is not its language."""
HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
MayRead = Callable[[str], bool]
"""Whether whoever asks may have a private repository of this name read with the server's token."""


def always(name: str) -> bool:
    """Of whoever brings a token of their own."""
    return True


REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)


def open_model(
    name: str,
    revision: str | None = None,
    *,
    mirror: Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    field: str = "model",
    may_read: MayRead = lambda name: True,
    is_own_token: bool = False,
) -> Repository:
    """The model at its pinned revision: an absolute folder, else the mirror's copy, else the Hub's repository.

    `field` names the form's field that faults belong to (`model` or `base_model`). A private repository is not there
    for whom `may_read` says no. `is_own_token`: the token is of whoever asks, so what it reads is theirs to submit; but
    nothing comes from a cache then, as only the Hub knows what it reads.

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
    if is_own_token:
        may_read = always
    try:
        return _open_hub(name, revision, token=token, endpoint=endpoint, field=field, may_read=may_read)
    except HubAway as error:
        if mirror is None and not isinstance(error.__cause__, OfflineModeIsEnabled):
            raise
        lacking = _unmirrored(name, mirror)
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            raise refused(field, f"This site does not ask the Hub (HF_HUB_OFFLINE). {lacking}") from error
        raise HubAway(f"{error.sentence} {lacking}") from error.__cause__


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


def _unmirrored(name: str, mirror: Path | None) -> str:
    """That a name stands for no model of the mirror, and for which it may have been meant."""
    if mirror is None:
        return "It has no mirror either: ask an operator to set one up (EVALYARD_MODELS), or name a folder by its path."
    names: dict[str, str] = {}
    with suppress(OSError):
        for folder in itertools.islice(mirror.glob("*/*"), MOST_MIRRORED):
            found = folder.relative_to(mirror).as_posix()
            if HUB_NAME.fullmatch(found) and folder.is_dir():
                names[found.casefold()] = found
    near = difflib.get_close_matches(name.casefold(), names, n=1)
    meant = f" Did you mean {names[near[0]]}?" if near else ""
    return f"The site's mirror (EVALYARD_MODELS) has no model {name} either.{meant}"


def _open_hub(
    name: str, revision: str | None, *, token: str | None, endpoint: str | None, field: str, may_read: MayRead
) -> Repository:
    api = HfApi(endpoint=endpoint, token=token or None)
    try:
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=REQUEST_SECONDS)
    except RevisionNotFoundError as error:
        if not may_read(name) and _is_hidden(api, name, may_read):
            raise _not_there(name, field=field) from error
        raise refused(
            _revision_field(field),
            f"Model {name} has no revision '{shown(revision or 'main')}'. Use a branch, tag or commit from its page.",
        ) from error
    except GatedRepoError as error:
        raise gated(name, field=field) from error
    except DisabledRepoError as error:
        raise refused(field, f"Model {name} was disabled by the Hub. Ask there why, and submit another one.") from error
    except RepositoryNotFoundError as error:
        raise _not_there(name, field=field) from error
    except UNANSWERED as error:
        if is_final(error):
            raise _not_there(name, field=field) from error
        # What lies in the cache may be private, and nobody can say now who may read it.
        cached = _cached(name, revision) if may_read is not always and may_read(name) else None
        if cached is None:
            raise away(name, error) from error
        return FolderRepository(cached, name=name, revision=cached.name, is_cache=True)
    if info.sha is None:
        raise away(name)
    if info.private and not may_read(info.id):
        raise _not_there(name, field=field)
    files = {sibling.rfilename: sibling.size or 0 for sibling in (info.siblings or [])[:MOST_FILES]}
    return HubRepository(
        api,
        name=info.id,
        revision=info.sha,
        files=files,
        is_private=bool(info.private),
        is_open=not info.private and info.gated is False,
        tags=tuple(str(tag)[:100] for tag in (info.tags or [])[:MOST_TAGS]),
    )


def _is_hidden(api: HfApi, name: str, may_read: MayRead) -> bool:
    """Whether a repository is private and not for whoever asks: then they are not told what it has."""
    try:
        info = api.model_info(name, timeout=REQUEST_SECONDS)
    except UNANSWERED as error:
        if isinstance(error, RepositoryNotFoundError) or is_final(error):
            return True
        raise away(name, error) from error
    return bool(info.private) and not may_read(info.id)


def _not_there(name: str, *, field: str) -> NotReadable:
    sentence = (
        f"There is no model {name} on the Hub that you may have evaluated here. Check the spelling on its page. A "
        "private model needs a token of yours that reads it (at /account), or the server's and an operator or a "
        "member of a team that may submit it (docs/submitting.md)."
    )
    return NotReadable([Fault(field, sentence)])


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
