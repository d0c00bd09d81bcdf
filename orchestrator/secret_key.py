"""The hub's own key: of its settings, else of a file in the data folder that is its owner's alone.

It lies beside the database and not in it, so that a copy of the database tells nothing that it protects.
"""

import os
import secrets
import tempfile
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.settings import HubSettings

KEY_FILE = "secret-key"


def read_key(settings: HubSettings) -> bytes:
    """The key of this hub; the file is made when it is first wanted.

    Raises:
        SettingsError: the file cannot be read or written, or holds no key.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
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
    return key


def _make(path: Path) -> None:
    """Write a new key whole, for the owner alone; where another process was faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{KEY_FILE}-")  # for the owner alone
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()
