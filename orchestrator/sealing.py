"""Secrets that must be read again, such as people's webhooks: encrypted with the hub's key before they are kept."""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.secret_key import read_key
from orchestrator.settings import HubSettings

PURPOSE = b"evalyard sealed secrets"
"""Keeps this key from being the one of digests, which comes of the same secret."""


class Sealer:
    """Encrypts and opens with one key."""

    def __init__(self, key: bytes) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(key)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str | None:
        """The secret; None where another key sealed it."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            return None


def open_sealer(settings: HubSettings) -> Sealer:
    """What this hub seals with.

    Raises:
        SettingsError: its key cannot be read.
    """
    return Sealer(read_key(settings))
