"""One revision of a model, in a folder or on the Hub: its files, small texts and safetensors headers.

Nothing here runs or unpickles a file of a model, and no weights are downloaded: only small text files and headers.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    SafetensorsParsingError,
)

from orchestrator.wire import FailureKind
from submissions.faults import Fault, HubAway, SubmissionRefused
from submissions.headers import HEADER_BYTES, TensorHeader, Unreadable, parse_header

NETWORK_ERRORS: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""What the HTTP library of huggingface_hub raises, whichever library that is in its version."""
TEXT_BYTES = 16 << 20
"""Larger text files are not read: no model needs them, and a hostile one could fill the memory."""
MOST_FILES = 20_000
"""What is looked at in a folder, which may be any of this machine."""


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
        self.files = folder_files(folder)

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
            raise gated(self.name) from error
        except LocalEntryNotFoundError as error:  # what huggingface_hub makes of a failed connection
            raise away(self.name) from error
        except EntryNotFoundError as error:
            raise Unreadable(f"{path} is listed but cannot be fetched") from error
        except NETWORK_ERRORS as error:
            raise away(self.name) from error

    def header(self, path: str) -> TensorHeader:
        try:
            metadata = self.api.parse_safetensors_file_metadata(self.name, path, revision=self.revision)
            return TensorHeader({str(name): n for name, n in metadata.parameter_count.items()}, len(metadata.tensors))
        except SafetensorsParsingError as error:
            raise Unreadable(f"{path} is not a safetensors file") from error
        except GatedRepoError as error:
            raise gated(self.name) from error
        except EntryNotFoundError as error:
            raise Unreadable(f"{path} is listed but cannot be fetched") from error
        except NETWORK_ERRORS as error:
            raise away(self.name) from error


def folder_files(folder: Path) -> dict[str, int]:
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


def refused(field: str, sentence: str, kind: FailureKind | None = None) -> SubmissionRefused:
    """A submission refused for one fault."""
    return SubmissionRefused([Fault(field, sentence, kind)])


def gated(name: str, *, field: str = "model") -> SubmissionRefused:
    return refused(
        field,
        f"Model {name} is gated. Ask for access on its page, give the server a token that has it (EVALYARD_HUB_TOKEN), "
        "then submit again.",
        FailureKind.GATED,
    )


def away(name: str) -> HubAway:
    return HubAway(
        f"The Hub does not answer, so {name} could not be checked. Nothing was submitted: try again in a few minutes, "
        "or submit a local folder."
    )
