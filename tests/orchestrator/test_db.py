import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Column, Engine, MetaData, event, func, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlmodel import SQLModel, select

from orchestrator import db
from orchestrator.errors import DatabaseUnusable
from orchestrator.tables import Submission
from orchestrator.wire import Precision
from tests.services import wait_until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def submission(**fields: object) -> Submission:
    return Submission(
        **{"model": "org/m", "revision": "c0ffee", "precision": Precision.EIGHT_BIT, "submitted_at": NOW, **fields}
    )


def test_migrations_make_exactly_the_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_a_database_of_any_earlier_version_keeps_its_rows(database_url: str) -> None:
    engine = db.make_engine(database_url)
    for revision in reversed(db.known_revisions()):
        db.migrate(engine, revision=revision)
        tables = MetaData()
        tables.reflect(engine)
        with engine.begin() as connection:
            for table in tables.sorted_tables:
                if connection.execute(select(func.count()).select_from(table)).scalar_one() == 0:
                    connection.execute(table.insert().values({column.name: any_value(column) for column in table.c}))
    with engine.begin() as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables.sorted_tables
        }
    engine.dispose()
    assert len(counts) > 20
    assert set(counts.values()) == {1}


def any_value(column: Column[Any]) -> object:
    """The same for each type, so that one row of each table refers to that of another."""
    if isinstance(column.type, JSON):
        return {}
    return {bool: False, int: 1, float: 0.5, datetime: NOW, str: "x", dict: {}}[column.type.python_type]


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    db.migrate(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [
            db.head_revision()
        ]


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    problems: list[BaseException] = []

    def migrate() -> None:
        engine = db.make_engine(database_url)
        try:
            db.migrate(engine)
        except BaseException as error:
            problems.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_newer_schema_is_refused_with_the_next_step(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnusable, match=r"made by a newer Evalyard \(schema 9999\).*Upgrade.*backup"):
        db.migrate(engine)


def test_tables_that_evalyard_did_not_make_are_left_alone(database_url: str) -> None:
    engine = db.make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE job (name VARCHAR(10))"))
    with pytest.raises(DatabaseUnusable, match="a database of its own"):
        db.migrate(engine)


def test_a_database_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = db.make_engine(f"sqlite:///{tmp_path / 'evalyard.db'}")
    db.migrate(made)
    with db.session(made):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) >= {"evalyard.db", "evalyard.db-wal"}
    assert set(modes.values()) == {0o600}
    made.dispose()


def test_an_unwritable_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DatabaseUnusable, match=r"data folder .*file/data cannot be written .*EVALYARD_DATA"):
        db.make_engine(f"sqlite:///{tmp_path}/file/data/evalyard.db")


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    engine = db.make_engine(f"postgresql://yard:hunter2@/yard?host={tmp_path}")
    with pytest.raises(DatabaseUnusable, match="running, reachable") as caught:
        db.migrate(engine)
    assert "hunter2" not in str(caught.value)


def test_a_full_disk_is_said_to_need_room(tmp_path: Path) -> None:
    engine = db.make_engine(f"sqlite:///{tmp_path}/small.db")

    @event.listens_for(engine, "connect")
    def keep_small(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 2")

    with pytest.raises(DatabaseUnusable, match=r"is full\. Make room on its disk") as caught:
        db.migrate(engine)
    assert "reachable" not in str(caught.value)


def test_a_database_in_memory_is_refused_because_processes_share_it() -> None:
    with pytest.raises(DatabaseUnusable, match="give SQLite a file"):
        db.make_engine("sqlite://")


def test_values_come_back_as_they_went_in(engine: Engine) -> None:
    with db.session(engine) as session:
        session.add(submission(parameters=70_000_000_000, facts={"tags": ["merge", "ü"]}))
    with db.session(engine, read_only=True) as session:
        row = session.exec(select(Submission)).one()
    assert (row.precision, row.parameters, row.facts, row.submitted_at) == (
        Precision.EIGHT_BIT,
        70_000_000_000,
        {"tags": ["merge", "ü"]},
        NOW,
    )


def test_enums_are_kept_as_their_plain_values(engine: Engine) -> None:
    with db.session(engine) as session:
        session.add(submission())
    with engine.begin() as connection:
        assert connection.execute(text("SELECT precision FROM submission")).scalar_one() == "8bit"


def test_an_exception_leaves_no_trace(engine: Engine) -> None:
    def write_half() -> None:
        with db.session(engine) as session:
            session.add(submission())
            session.flush()
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    with db.session(engine, read_only=True) as session:
        assert session.exec(select(Submission)).all() == []


def test_a_read_only_session_cannot_write_and_leaves_the_next_one_writable(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"), db.session(engine, read_only=True) as session:
        session.add(submission())
    with db.session(engine) as session:
        session.add(submission())


def test_foreign_keys_are_enforced(engine: Engine) -> None:
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(
            text("INSERT INTO event (at, evaluation_id, name, details) VALUES ('2026-01-01', 99, 'x', '{}')")
        )


def test_writers_wait_for_each_other_and_lose_no_increment(engine: Engine) -> None:
    with db.session(engine) as session:
        session.add(submission(parameters=0))

    def add_ten() -> None:
        for _ in range(10):
            with db.session(engine) as session:
                row = session.exec(select(Submission).with_for_update()).one()
                row.parameters = (row.parameters or 0) + 1
                session.add(row)

    threads = [threading.Thread(target=add_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.session(engine, read_only=True) as session:
        assert session.exec(select(Submission)).one().parameters == 40


def stand_still(engine: Engine) -> None:
    """Go on with a transaction that PostgreSQL has ended meanwhile."""
    with db.session(engine) as session:
        session.execute(text("SET idle_in_transaction_session_timeout = 100"))
        own = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        others = text(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {own}")

        def ended() -> bool:
            with db.session(engine, read_only=True) as other:
                return other.execute(others).scalar_one() == 0

        wait_until(ended, "PostgreSQL has ended the transaction")
        session.execute(text("SELECT 1"))


def test_a_transaction_that_postgresql_ended_is_a_database_that_was_away(postgres_url: str) -> None:
    engine = db.make_engine(postgres_url)
    with pytest.raises(OperationalError):
        stand_still(engine)
    engine.dispose()


def test_on_postgresql_no_process_waits_for_ever_for_one_that_stands_still(postgres_url: str) -> None:
    engine = db.make_engine(postgres_url)
    with db.session(engine, read_only=True) as session:
        assert session.execute(text("SHOW lock_timeout")).scalar_one() == "30s"
        assert session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "2min"
    engine.dispose()
