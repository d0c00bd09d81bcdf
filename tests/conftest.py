"""Fixtures that every test may use: a database of either kind, fresh for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from orchestrator import db
from tests.postgres import PostgresUnavailable, Server, running_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    try:
        with running_server() as server:
            yield server
    except PostgresUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PostgreSQL could not be started: {error}")
        pytest.skip(f"NOT TESTED ON POSTGRESQL: it could not be started: {error}")


@pytest.fixture
def postgres_url(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    _administer(postgres_server, f'CREATE DATABASE "{name}"')
    yield postgres_server.url(name)
    _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(server: Server, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'evalyard.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of a database with Evalyard's tables, once for each kind."""
    made = db.make_engine(database_url)
    db.migrate(made)
    yield made
    made.dispose()
