"""Where a model lives and what can be read of it without loading it: files, configs, safetensors headers.

A model is a folder on this machine, a folder of the mirror (`EVALYARD_MODELS/<org>/<name>`), or a Hub repository.
Nothing here runs or unpickles a file of a model, and no weights are downloaded: only small text files and headers.
"""

import functools
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)

from orchestrator import artifacts
from orchestrator.wire import FailureKind
from submissions.faults import Fault, HubAway, SubmissionRefused

HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)
NETWORK_ERRORS: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""What the HTTP library of huggingface_hub raises, whichever library that is in its version."""
TEXT_BYTES = 16 << 20
"""Larger text files are not read: no model needs them, and a hostile one could fill the memory."""
HEADER_BYTES = 25_000_000
"""The limit that huggingface_hub sets for a safetensors header."""
MOST_FILES = 20_000
"""What is looked at in a folder, which may be any of this machine."""
MOST_ELEMENTS = 1 << 50
"""Weights of a model: far more than any has, and few enough for the database."""
DTYPE = re.compile(r"[A-Z0-9_]{1,16}")


class TensorHeader(NamedTuple):
    """What one safetensors file says of its tensors."""

    elements: Mapping[str, int]
    """Number of elements by dtype, e.g. `{"BF16": 7_241_732_096}`."""
    tensors: int


class Unreadable(Exception):
    """A file is there but is not what its name says."""


class Repository(Protocol):
    """One revision of a model, wherever it lies."""

    @property
    def name(self) -> str:
        """Canonical `org/name`, or the last part of a folder's path."""

    @property
    def revision(self) -> str:
        """Commit sha, or `sha256-…` of a folder."""

    @property
    def folder(self) -> str | None:
        """Absolute path of a folder; None for a Hub repository."""

    @property
    def files(self) -> Mapping[str, int]:
        """Bytes by path inside the repository, `/`-separated."""

    def text(self, path: str) -> str:
        """The content of a small text file."""

    def header(self, path: str) -> TensorHeader:
        """The header of a safetensors file."""


class FolderRepository:
    """A model in a folder of this machine."""

    def __init__(self, folder: Path, *, name: str, revision: str, is_cache: bool = False) -> None:
        self.path = folder
        self.name = name
        self.revision = revision
        self.folder = None if is_cache else str(folder)
        self.files = _folder_files(folder)

    def text(self, path: str) -> str:
        if self.files[path] > TEXT_BYTES:
            raise Unreadable(f"{path} is larger than {TEXT_BYTES >> 20} MiB")
        try:
            return (self.path / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{path} cannot be read as text ({error.__class__.__name__})") from error

    def header(self, path: str) -> TensorHeader:
        try:
            with (self.path / path).open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 2 <= length <= min(HEADER_BYTES, self.files[path]):
                    raise Unreadable(f"{path} is not a safetensors file")
                return parse_header(path, file.read(length))
        except OSError as error:
            raise Unreadable(f"{path} cannot be read ({error.strerror})") from error


class HubRepository:
    """A model repository on the Hub, at a pinned commit."""

    def __init__(self, api: HfApi, *, name: str, revision: str, files: Mapping[str, int]) -> None:
        self.api = api
        self.name = name
        self.revision = revision
        self.folder = None
        self.files = files

    def text(self, path: str) -> str:
        if self.files[path] > TEXT_BYTES:
            raise Unreadable(f"{path} is larger than {TEXT_BYTES >> 20} MiB")
        try:
            local = self.api.hf_hub_download(self.name, path, revision=self.revision)
            return Path(local).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"{path} is not UTF-8 text") from error
        except GatedRepoError as error:
            raise _gated(self.name) from error
        except LocalEntryNotFoundError as error:  # what huggingface_hub makes of a failed connection
            raise _away(self.name) from error
        except EntryNotFoundError as error:
            raise Unreadable(f"{path} is listed but cannot be fetched") from error
        except NETWORK_ERRORS as error:
            raise _away(self.name) from error

    def header(self, path: str) -> TensorHeader:
        try:
            metadata = self.api.parse_safetensors_file_metadata(self.name, path, revision=self.revision)
            return TensorHeader({str(name): n for name, n in metadata.parameter_count.items()}, len(metadata.tensors))
        except SafetensorsParsingError as error:
            raise Unreadable(f"{path} is not a safetensors file") from error
        except GatedRepoError as error:
            raise _gated(self.name) from error
        except EntryNotFoundError as error:
            raise Unreadable(f"{path} is listed but cannot be fetched") from error
        except NETWORK_ERRORS as error:
            raise _away(self.name) from error


def parse_header(path: str, header: bytes) -> TensorHeader:
    """Elements by dtype from the JSON of a safetensors header.

    Raises:
        Unreadable: the header is not what the format says.
    """
    try:
        tensors: dict[str, Any] = json.loads(header)
        elements: dict[str, int] = {}
        count = 0
        for name, tensor in tensors.items():
            if name == "__metadata__":
                continue
            dtype = tensor["dtype"]
            if not DTYPE.fullmatch(dtype):
                raise ValueError(dtype)
            elements[dtype] = elements.get(dtype, 0) + _elements(tensor["shape"])
            count += 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path} has a damaged safetensors header") from error
    return TensorHeader(elements, count)


def _elements(shape: list[int]) -> int:
    """Number of elements; checked at each step, as the product of a hostile header would take days to compute."""
    size = 1
    for length in shape:
        if type(length) is not int or not 0 <= length <= MOST_ELEMENTS:
            raise ValueError(length)
        size *= length
        if size > MOST_ELEMENTS:
            raise ValueError(size)
    return size


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
        raise _refused(field, "Name a model: a Hub id such as org/name, or the absolute path of a folder.")
    if Path(name).is_absolute():
        return _open_folder(Path(name), revision, field=field)
    if not HUB_NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise _refused(
            field,
            f"'{shown(name)}' is neither a Hub id nor the absolute path of a folder. Write org/name or /path/to/it.",
        )
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise _refused(
            _revision_field(field), f"'{shown(revision)}' is no revision. Use a branch, tag or commit from its page."
        )
    if mirror is not None and (mirror / name).is_dir():
        return _open_mirrored(mirror / name, name, revision, field=field)
    return _open_hub(name, revision, token=token, endpoint=endpoint, field=field)


def shown(text: str, *, most: int = 80) -> str:
    """`text` fit for a sentence: printable, on one line, not longer than `most` characters."""
    clean = "".join(character if character.isprintable() else "�" for character in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _open_folder(folder: Path, revision: str | None, *, field: str) -> Repository:
    try:
        is_there = folder.is_dir()
    except OSError as error:
        raise _unreadable(folder, error, field=field) from error
    if not is_there:
        raise _refused(field, f"There is no folder {shown(str(folder), most=300)} on this machine. Check the path.")
    if not str(folder.resolve()).isprintable():
        # It will stand in pages, logs, terminals and shell commands.
        raise _refused(
            field,
            f"The folder {shown(str(folder), most=300)} has characters in its path that cannot be shown. Rename it.",
        )
    digest = _digest(folder, field=field)
    if revision not in (None, digest):
        raise _refused(
            _revision_field(field),
            f"The folder {shown(folder.name)} has no revision '{shown(revision or '')}': a folder is pinned by the "
            "digest of its files. Leave the revision out.",
        )
    folder = folder.resolve()
    return FolderRepository(folder, name=folder.name or "model", revision=digest)


def _open_mirrored(folder: Path, name: str, revision: str | None, *, field: str) -> Repository:
    digest = _digest(folder, field=field)
    if revision not in (None, "main", digest):
        raise _refused(
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
        raise _refused(
            _revision_field(field),
            f"Model {name} has no revision '{shown(revision or 'main')}'. Use a branch, tag or commit from its page.",
        ) from error
    except GatedRepoError as error:
        raise _gated(name, field=field) from error
    except RepositoryNotFoundError as error:
        raise _refused(
            field,
            f"There is no model {name} on the Hub that this server may read. Check the spelling on its page; a private "
            "model needs a server token with access (EVALYARD_HUB_TOKEN).",
        ) from error
    except NETWORK_ERRORS as error:
        cached = _cached(name, revision)
        if cached is None:
            raise _away(name) from error
        return FolderRepository(cached, name=name, revision=cached.name, is_cache=True)
    if info.sha is None:
        raise _away(name)
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
    return _refused(
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


def _folder_files(folder: Path) -> dict[str, int]:
    """Bytes by path, the folder's own files first; hidden ones and what lies behind linked folders are left out."""
    files: dict[str, int] = {}
    seen = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            with suppress(OSError):
                if not name.startswith(".") and path.is_file():
                    files[path.relative_to(folder).as_posix()] = path.stat().st_size
        seen += 1 + len(names)
        if seen >= MOST_FILES:
            break
    return files


def _revision_field(field: str) -> str:
    return "revision" if field == "model" else field


def _refused(field: str, sentence: str, kind: FailureKind | None = None) -> SubmissionRefused:
    return SubmissionRefused([Fault(field, sentence, kind)])


def _gated(name: str, *, field: str = "model") -> SubmissionRefused:
    return _refused(
        field,
        f"Model {name} is gated. Ask for access on its page, give the server a token that has it (EVALYARD_HUB_TOKEN), "
        "then submit again.",
        FailureKind.GATED,
    )


def _away(name: str) -> HubAway:
    return HubAway(
        f"The Hub does not answer, so {name} could not be checked. Nothing was submitted: try again in a few minutes, "
        "or submit a local folder."
    )
