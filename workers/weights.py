"""The files of a model on this host: a verified local folder, or a download pinned to the commit.

Only config, tokenizer, templates and safetensors are ever fetched or read: no code, no pickle. The token stays in
this process.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors

from orchestrator.artifacts import MODEL_FILES, TEMPLATE_FOLDER, file_sha256, model_folder_digest
from orchestrator.wire import FailureKind, Model

WEIGHTS = "*.safetensors"


class ModelUnavailable(Exception):
    """The model's files cannot be had, with the class of the failure and a sentence with the next step."""

    def __init__(self, kind: FailureKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


@dataclass(frozen=True)
class LocalModel:
    """A model whose files are here."""

    model: Model
    """As ordered, with the base model's folder filled in for an adapter."""
    folder: Path


class Weights:
    """Finds and fetches models for one worker."""

    def __init__(self, *, mirror: Path | None, token: str | None, digests: Path) -> None:
        """`mirror`: folder laid out `org/name/`; `digests`: file that remembers digests of unchanged local files."""
        self._mirror = mirror
        self._token = token
        self._digests = DigestCache(digests)

    def resolve(self, model: Model, *, weights: bool) -> LocalModel:
        """The model in a local folder, with its weights or without.

        Raises:
            ModelUnavailable: changed, missing, gated, incomplete, or the Hub is away.
        """
        base_folder = model.base_folder
        if model.weight_type == "adapter" and model.base_name and model.base_revision:
            base = self._find(model.base_name, model.base_revision, model.base_folder, weights=weights)
            base_folder = str(base)
        folder = self._find(model.name, model.revision, model.folder, weights=weights)
        return LocalModel(model.model_copy(update={"base_folder": base_folder}), folder)

    def _find(self, name: str, revision: str, folder: str | None, *, weights: bool) -> Path:
        if folder is not None or revision.startswith("sha256-"):
            found = self._verify(name, revision, folder)
        else:
            found = download(name, revision, weights=weights, token=self._token)
        if weights:
            check_complete(name, found)
        return found

    def _verify(self, name: str, revision: str, folder: str | None) -> Path:
        """A local folder, or the same model in this host's mirror, if its files are still those submitted."""
        candidates = [Path(folder)] if folder else []
        if self._mirror is not None and _is_plain(name):
            candidates.append(self._mirror / name)
        present = [candidate for candidate in candidates if candidate.is_dir()]
        if not present:
            places = " and ".join(map(str, candidates)) or "any folder"
            raise ModelUnavailable(
                FailureKind.WEIGHTS,
                f"Model {name} is not on this worker's host (looked in {places}). Put the folder there, or into the "
                "mirror named by EVALYARD_MODELS, and retry.",
            )
        for candidate in present:
            try:
                digest = model_folder_digest(candidate, file_digest=self._digests.sha256)
            except OSError as error:
                raise ModelUnavailable(
                    FailureKind.WEIGHTS,
                    f"Model folder {candidate} cannot be read: {error.strerror}. Mend it and retry.",
                ) from error
            if digest == revision:
                return candidate
        raise ModelUnavailable(
            FailureKind.WEIGHTS,
            f"The files in {present[0]} have changed since {name} was submitted (submitted as {revision[:19]}…). "
            "Submit the folder again to evaluate what it holds now.",
        )


class DigestCache:
    """SHA-256 of local files, remembered as long as size, time and inode stay the same: weights are large."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sha256(self, file: Path) -> str:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._read()
        entry = known.get(str(file.absolute()))
        if entry and entry[:3] == stamp:
            return str(entry[3])
        digest = file_sha256(file)
        # A file written in this very moment may change again without a new time.
        if stat.st_size > 1 << 20 and time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
            self._write(known | {str(file.absolute()): [*stamp, digest]})
        return digest

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, list[Any]]) -> None:
        """Whole or not at all; when two write at once one is forgotten, which costs a digest later."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(self._path)


def download(name: str, revision: str, *, weights: bool, token: str | None) -> Path:
    """The snapshot of a Hub repository at a commit, from the cache when the Hub is away.

    Raises:
        ModelUnavailable: see the class of the failure.
    """
    wanted = [pattern for pattern in MODEL_FILES if weights or pattern != WEIGHTS]
    # In the Hub's patterns `*` also matches the slash: files of subfolders (other formats) are left out by these.
    unwanted = [f"*/{pattern}" for pattern in MODEL_FILES if pattern != "*.jinja"]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*wanted, f"{TEMPLATE_FOLDER}/*.jinja"],
                ignore_patterns=unwanted,
                token=token,
            )
        )
    except hub_errors.GatedRepoError as error:
        raise ModelUnavailable(
            FailureKind.GATED,
            f"Model {name} is gated and the token at hand may not read it. Ask for access on its page and set "
            "EVALYARD_HUB_TOKEN to a token of that account.",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelUnavailable(
            FailureKind.WEIGHTS, f"Model {name} has no commit {revision} any more. Submit it again."
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelUnavailable(
            FailureKind.GATED,
            f"Model {name} is not on the Hub, or it is private and the token at hand may not read it.",
        ) from error
    except hub_errors.HFValidationError as error:
        raise ModelUnavailable(FailureKind.CONFIG, f"{name!r} is not a repository's name on the Hub.") from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise ModelUnavailable(
                FailureKind.STORAGE,
                f"Model {name} could not be kept on the worker's disk: {error.strerror}. Make room and retry.",
            ) from error
        raise _away(name, revision, error) from error
    except Exception as error:  # the HTTP client underneath has its own classes, and they change
        raise _away(name, revision, error) from error


def check_complete(name: str, folder: Path) -> None:
    """Refuse a folder whose weights are not all there.

    Raises:
        ModelUnavailable: no safetensors, or a part that the index names is missing.
    """
    if not any(folder.glob(WEIGHTS)):
        raise ModelUnavailable(
            FailureKind.WEIGHTS,
            f"Model {name} has no safetensors weights here. Upload them (pickled weights are never loaded), or retry "
            "once the Hub can be reached.",
        )
    for index in folder.glob("*.safetensors.index.json"):
        try:
            parts = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ModelUnavailable(
                FailureKind.WEIGHTS, f"{index.name} of model {name} is not a readable index. Upload it again."
            ) from error
        for part in sorted(map(str, parts)):
            if "/" in part or not (folder / part).is_file():
                raise ModelUnavailable(
                    FailureKind.WEIGHTS,
                    f"Model {name} lacks {part}, which its {index.name} names. Upload the missing part.",
                )


def _away(name: str, revision: str, error: Exception) -> ModelUnavailable:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelUnavailable(
        FailureKind.DOWNLOAD,
        f"Model {name} at {revision[:12]} could not be fetched from the Hub: {first[:200]} "
        "It is tried again by itself; check the worker's network or put the model into a mirror (EVALYARD_MODELS).",
    )


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith(".") and "\\" not in part for part in parts)
