"""The database: engines for SQLite and PostgreSQL, sessions, and bringing the schema up to date.

Both databases give the same promises here: a writing session sees no other writer's half-done work, and waits for it
instead of failing. Nothing connects at import; this module knows no table.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from orchestrator.errors import DatabaseUnusable

Value = TypeVar("Value")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""
STANDING_STILL_SECONDS = 120.0
"""How long PostgreSQL keeps the locks of a process that is stopped, or cut off, inside a transaction."""
IDLE_IN_TRANSACTION = "25P03"
"""SQLSTATE with which PostgreSQL then ended it."""
TOO_MUCH = "54"
"""Class of the SQLSTATEs with which PostgreSQL refuses what is too long for it, in an index above all."""
UNDONE = frozenset({"40P01", "40001"})
"""SQLSTATEs with which PostgreSQL undoes one of two transactions that wait for each other, or that cannot both be."""
BUSY = frozenset({"55P03", "53300"})
"""SQLSTATEs of PostgreSQL: a lock was not given in `BUSY_SECONDS`, or it takes no more connections."""
DISK_FULL = "53100"
"""SQLSTATE of PostgreSQL."""
MOST_VARIABLES = 10_000
"""Values in one statement: SQLite takes 32,766, PostgreSQL's driver 65,535."""
MIGRATION_LOCK = 0x45564C59
"""Advisory lock number on PostgreSQL: one process migrates, the others wait and find nothing left to do."""


def make_engine(url: str) -> Engine:
    """Engine for `sqlite:///…` or `postgresql://…`; creates the folder of an SQLite file.

    Raises:
        DatabaseUnusable: the folder cannot be written, or the driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseUnusable(f"{url!r} is not a database URL. Use sqlite:///… or postgresql://….") from error
    if parsed.get_backend_name() == "sqlite":
        return _make_sqlite_engine(parsed.database or "")
    try:
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=10,
            connect_args={"options": _postgres_options(str(parsed.query.get("options", "")))},
        )
    except ModuleNotFoundError as error:
        raise DatabaseUnusable("PostgreSQL needs its driver: pip install 'evalyard[postgres]'.") from error
    event.listen(engine, "handle_error", _on_postgres_error)
    return engine


@contextmanager
def session(engine: Engine, *, read_only: bool = False) -> Iterator[Session]:
    """A session in one transaction, committed at the end and rolled back by an exception.

    Objects stay readable after the commit. A read-only session never waits for a writer, and may not write.

    Raises:
        OperationalError: the database is away, or busy: see `is_busy`.
    """
    bind = engine.execution_options(evalyard_read_only=True, postgresql_readonly=True) if read_only else engine
    with ExitStack() as stack:
        if not read_only and engine.dialect.name == "sqlite":
            stack.enter_context(_turn_to_write(engine))
        opened = stack.enter_context(Session(bind, expire_on_commit=False))
        try:
            yield opened
            opened.commit()
        except PoolTimeout as error:
            # Too much at once is as good as a database that is away: whoever asks again later is served.
            raise OperationalError(None, None, TimeoutError(error.args[0])) from error
        except BaseException:
            opened.rollback()
            raise


@contextmanager
def _turn_to_write(engine: Engine) -> Iterator[None]:
    """Writers of one process follow each other at once: SQLite itself sleeps up to 0.1 s and looks again.

    It still decides; whoever has waited for as long as it would lets it say so.
    """
    lock = _writers.setdefault(str(engine.url.database), threading.RLock())
    has_it = lock.acquire(timeout=BUSY_SECONDS)
    try:
        yield
    finally:
        if has_it:
            lock.release()


_writers: dict[str, threading.RLock] = {}


def chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """The values in parts that fit into a statement."""
    for start in range(0, len(values), MOST_VARIABLES):
        yield values[start : start + MOST_VARIABLES]


def migrate(engine: Engine, *, revision: str = "head") -> None:
    """Bring the schema to this version's, from any earlier one; safe when several processes start at once.

    An earlier `revision` is for restoring a backup of that time into an empty database.

    Raises:
        DatabaseUnusable: the database cannot be reached or written, is of a newer Evalyard, or holds foreign tables.
    """
    config, script = _scripts()
    try:
        with _migrating(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = 0"))  # another process may migrate for long
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            present = MigrationContext.configure(connection).get_current_heads()
            _refuse_foreign(connection, present, script)
            if set(present) != set(script.get_heads()):
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                _refuse_dangling(connection)
    except (OperationalError, DBAPIError) as error:
        raise DatabaseUnusable(
            f"The database {_shown(engine)} cannot be used: {_first_line(error.orig)}. {_next_step(error.orig)}"
        ) from error


def analyze(engine: Engine) -> None:
    """After many rows came at once: PostgreSQL plans by what it knows of tables, and looks by itself once a minute."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("ANALYZE"))


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """A transaction in which SQLite may copy a table to change it: dropping the old one breaks what refers to it."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys=OFF")  # without effect inside a transaction
        try:
            with connection.begin():
                yield connection
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _refuse_dangling(connection: Connection) -> None:
    """Undo a change of the schema after which some row refers to nothing; PostgreSQL sees to it by itself."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise DatabaseUnusable(
                f"A row of the table {broken[0]} of {_shown(connection.engine)} refers to one that is not there, so "
                "its schema was left as it is. Restore a backup."
            )


def head_revision() -> str:
    """The schema revision of this version of Evalyard."""
    head = _scripts()[1].get_current_head()
    assert head is not None
    return head


def known_revisions() -> list[str]:
    """Every schema revision that this version can bring up to date, the newest first."""
    return [revision.revision for revision in _scripts()[1].walk_revisions()]


def _scripts() -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)


def _refuse_foreign(connection: Connection, present: tuple[str, ...], script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if unknown := [revision for revision in present if revision not in known]:
        raise DatabaseUnusable(
            f"The database {_shown(connection.engine)} was made by a newer Evalyard (schema {unknown[0]}). "
            "Upgrade this Evalyard, or restore a backup that this version made."
        )
    if not present and {"job", "evaluation", "submission"} & set(inspect(connection).get_table_names()):
        raise DatabaseUnusable(
            f"The database {_shown(connection.engine)} holds tables that Evalyard's migrations did not make. "
            "Give Evalyard a database of its own."
        )


def _on_postgres_error(context: ExceptionContext) -> None:
    """Tell a database that is away from a value that it cannot hold, which it would refuse each time.

    A process that stood still in a transaction finds it ended: that is a database that was away, and no fault.
    """
    error = context.original_exception
    state = getattr(error, "sqlstate", None) or ""
    if state == IDLE_IN_TRANSACTION:
        raise OperationalError(context.statement, None, error) from error
    if state.startswith(TOO_MUCH):
        raise DataError(context.statement, None, error) from error


def was_undone(error: OperationalError) -> bool:
    """Whether the database undid a transaction for another's sake. It is there, and the next try may go through."""
    return getattr(error.orig, "sqlstate", None) in UNDONE


def is_busy(error: OperationalError) -> bool:
    """Whether the database is there, and this process or others have more for it than it can take now."""
    cause = error.orig
    return (
        isinstance(cause, TimeoutError)
        or getattr(cause, "sqlstate", None) in BUSY
        or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
    )


def log_lost(log: logging.Logger, error: OperationalError) -> None:
    """Say in a thread's log why its round came to nothing; the next one makes it again."""
    name = "transaction_undone" if was_undone(error) else "database_busy" if is_busy(error) else "database_away"
    log.warning("%s error=%s", name, str(error.orig).strip())


def _postgres_options(given: str) -> str:
    """What the URL says, with limits on waiting: a process that stands still inside a transaction stops no other."""
    busy, idle = int(BUSY_SECONDS * 1000), int(STANDING_STILL_SECONDS * 1000)
    return f"-c lock_timeout={busy} -c idle_in_transaction_session_timeout={idle} {given}".strip()


def _make_sqlite_engine(database: str) -> Engine:
    path = Path(database)
    if database in ("", ":memory:"):
        raise DatabaseUnusable("Several processes share the database: give SQLite a file, sqlite:///path/evalyard.db.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what is private stands in it; SQLite gives its journal the same mode
        # SQLite itself says no more than "unable to open database file".
        with path.open("ab"):
            pass
    except OSError as error:
        raise DatabaseUnusable(
            f"The data folder {path.parent} cannot be written ({error.strerror}). "
            "Choose another with --data or EVALYARD_DATA, or change its owner."
        ) from error
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _on_sqlite_connect(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come too late and be of the wrong kind
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the write lock at once: a transaction that reads first could not be given it later."""
    read_only = bool(connection.get_execution_options().get("evalyard_read_only"))
    connection.exec_driver_sql(f"PRAGMA query_only={int(read_only)}")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _shown(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _next_step(error: BaseException | None) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "sqlstate", None) == DISK_FULL:
        return "Make room on its disk, and do this again."
    return "Check that it is running, reachable and writable."


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
