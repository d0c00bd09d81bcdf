"""Secrets of tokens and sessions: how they are made, and the keyed digest that alone is kept of them.

The digest is fast, as these secrets are random and long: nothing is gained by slowing down guesses of 256 bits. Its
key lies beside the database and not in it, so that a copy of the database tells nothing about any token.
"""

import hashlib
import hmac
import re
import secrets

from orchestrator.secret_key import read_key
from orchestrator.settings import HubSettings

TOKEN_PREFIX = "evy_"  # noqa: S105  # what tokens begin with, so that people and scanners know one
TOKEN = re.compile(r"evy_[A-Za-z0-9_-]{43}")


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
    """The digests of this hub.

    Raises:
        SettingsError: its key cannot be read.
    """
    return Digester(read_key(settings))
