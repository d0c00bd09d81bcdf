"""Secrets of tokens and sessions: how they are made, and the keyed digest that alone is kept of them.

The digest is fast, as these secrets are random and long: nothing is gained by slowing down guesses of 256 bits. Its
key lies beside the database and not in it, so that a copy of the database tells nothing about any token.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.settings import HubSettings

TOKEN_PREFIX = "evy_"  # noqa: S105  # what tokens begin with, so that people and scanners know one
TOKEN = re.compile(r"evy_[A-Za-z0-9_-]{43}")
KEY_FILE = "secret-key"


def new_token() -> str:
    return TOKEN_PREFIX + new_secret()


def new_secret() -> str:
    """43 characters that no one can guess."""
    return secrets.token_urlsafe(32)


class Digester:
    """Keyed digests of secrets; `purpose` keeps those of one kind from passing for another."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, secret: str, purpose: str) -> str:
        return hmac.new(self._key, f"{purpose}\0{secret}".encode(), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def open_digester(settings: HubSettings) -> Digester:
    """The digests of this hub: by the key of its settings, else by that of the data folder, made when first wanted.

    Raises:
        SettingsError: the file cannot be read or written, or holds no key.
    """
    if settings.secret_key is not None:
        return Digester(settings.secret_key.get_secret_value().encode())
    path = settings.data / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"The key file {path} cannot be used ({error.strerror}). Change its owner, or set EVALYARD_SECRET_KEY."
        ) from error
    if len(key) < 32:
        raise SettingsError(f"The key file {path} holds no key. Delete it: everybody then signs in again.")
    return Digester(key)


def _make(path: Path) -> None:
    """Write a new key whole, for the owner alone; where another process was faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{KEY_FILE}-")  # for the owner alone
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret() + "\n")
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()
