"""Fixtures that every test may use: a database of either kind, fresh for each test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from orchestrator import db
from tests.migrated import migrate, migrated_sqlite
from tests.postgres import PostgresUnavailable, Server, running_server
from tests.services import processes_with
from tests.slurm import Slurm, SlurmUnavailable, running_slurm

# Run in the background of a script, tests inherit that SIGINT is ignored, and so would what they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files of tests run side by side, and their models are tiny: threads that wait for one another only take from the rest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG = {"vllm", "flow"}
"""Marks of tests that take long: begun first, so that side by side no process of tests is left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.isdisjoint(mark.name for mark in item.iter_markers()))


MIGRATED = "migrated"
"""PostgreSQL database with Evalyard's tables and no rows: copied, which is faster than migrating for each test."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    try:
        # Databases are made and dropped by the hundred, each of hundreds of files.
        with running_server(in_memory=True) as server:
            _administer(server, f"CREATE DATABASE {MIGRATED}")
            migrate(server.url(MIGRATED))
            yield server
    except PostgresUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PostgreSQL could not be started: {error}")
        pytest.skip(f"NOT TESTED ON POSTGRESQL: it could not be started: {error}")


@pytest.fixture
def postgres_url(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty PostgreSQL database; with Evalyard's tables where the test uses `engine`."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    template = f"TEMPLATE {MIGRATED}" if "engine" in request.fixturenames else ""
    _administer(postgres_server, f"CREATE DATABASE {name} {template}")
    yield postgres_server.url(name)
    _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once for each kind; with Evalyard's tables where the test uses `engine`."""
    if request.param == "sqlite":
        path = tmp_path / "evalyard.db"
        if "engine" in request.fixturenames:
            path.write_bytes(migrated_sqlite())
        return f"sqlite:///{path}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of a database with Evalyard's tables, once for each kind."""
    made = db.make_engine(database_url)
    yield made
    made.dispose()


def _administer(server: Server, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A real Slurm of two nodes with a fake GPU each; afterwards no process of it may be left."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        with running_slurm(folder / "slurm", gpus=1) as made:
            yield made
    except SlurmUnavailable as error:
        pytest.skip(f"NOT TESTED ON SLURM: {error}")
    assert processes_with(str(folder)) == {}
