"""Backup and restore of everything the hub knows: the rows of every table, and every artifact, with digests.

    manifest.json                       written last: a folder without it is no backup
    database/<table>.jsonl.zst          one row a line: readable, and the same for SQLite and PostgreSQL
    artifacts/<key>                     as in the artifact store

Rows are kept as JSON rather than as a copy of the database, so that a team may start on SQLite and move to PostgreSQL
by backup and restore. They are read first, in one snapshot, and the artifacts after them: those are only ever added,
so whatever a row names is in the backup, though the hub goes on working. Model weights and data sets are not in it.
"""

import json
import re
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy import Connection, Engine, inspect, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlmodel import col, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore, file_sha256, is_key
from orchestrator.errors import EvalyardError, Refused
from orchestrator.program import data_here, program
from orchestrator.rows import Progress, is_empty, read_table, write_tables
from orchestrator.settings import HubSettings
from orchestrator.store_check import refuse_lost_store
from orchestrator.tables import Cluster

FORMAT = 1
PREFIXES = ("sheets", "responses", "results", "canaries")
TABLE = re.compile(r"[a-z][a-z_]{0,59}")


class DamagedBackup(EvalyardError):
    """The backup is incomplete, or its bytes do not match its digests."""


def backup(settings: HubSettings, folder: Path, *, progress: Progress | None = None) -> str:
    """Write a backup into a new or empty folder; the hub may go on working. Returns what was done, as a sentence.

    Raises:
        Refused: the folder holds something already, there is no database to back up, or the artifact store is empty
            that has been used: it is not mounted.
    """
    tell = progress or (lambda *_: None)
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"The folder {folder} is not empty. Give the backup a folder of its own.")
    engine = present_database(settings, what="to back up")
    db.migrate(engine)
    store = ArtifactStore(settings.artifacts_url, read_only=True)
    if not store.is_there():
        refuse_lost_store(engine, store)
    (folder / "database").mkdir(parents=True, exist_ok=True)
    tables = write_tables(engine, folder / "database", tell)
    artifacts = _copy_artifacts_out(store, folder / "artifacts", tell)
    manifest = {
        "format": FORMAT,
        "schema": db.head_revision(),
        "made_at": datetime.now(UTC).isoformat(),
        "tables": tables,
        "artifacts": artifacts,
    }
    temporary = folder / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=1))
    temporary.replace(folder / "manifest.json")
    again = f"{program()} restore {folder} --data NEW_FOLDER"
    return f"Backed up {_contents(manifest)} from {_place(settings)} to {folder}. Bring it back: {again}"


def restore(settings: HubSettings, folder: Path, *, progress: Progress | None = None) -> str:
    """Fill an empty database and artifact store from a backup, then bring the schema up to date.

    Interrupted, it can be run again: artifacts come first and are never overwritten, rows come in one transaction.

    Raises:
        Refused: the database or the artifact store holds something else already.
        DamagedBackup: the backup is incomplete or damaged; nothing was written to the database.
    """
    tell = progress or (lambda *_: None)
    manifest = _read_manifest(folder)
    engine = db.make_engine(settings.database_url)
    shown = engine.url.render_as_string(hide_password=True)
    if not is_empty(engine, manifest["schema"]):
        raise Refused(
            f"The database {shown} is not empty, and restore never overwrites. "
            "Give a new data folder (--data), or a new database (EVALYARD_DATABASE_URL)."
        )
    store = ArtifactStore(settings.artifacts_url)
    wanted: dict[str, dict[str, Any]] = manifest["artifacts"]
    if foreign := [key for prefix in PREFIXES for key in store.list(prefix) if key not in wanted]:
        raise Refused(
            f"The artifact store {settings.artifacts_url} holds {len(foreign)} artifacts that are not of this backup, "
            f"such as {foreign[0]}. Restore into an empty one (EVALYARD_ARTIFACTS_URL)."
        )
    for table, facts in manifest["tables"].items():
        _check(folder / "database" / f"{table}.jsonl.zst", facts["sha256"])
    for number, (key, facts) in enumerate(wanted.items(), start=1):
        path = folder / "artifacts" / key
        _check(path, facts["sha256"])
        store.put_file(key, path)
        tell("artifacts", number, len(wanted))
    db.migrate(engine, revision=manifest["schema"])
    try:
        with engine.begin() as connection:
            for number, table in enumerate(manifest["tables"], start=1):
                read_table(connection, table, folder / "database" / f"{table}.jsonl.zst")
                tell("tables", number, len(manifest["tables"]))
            clusters = _take_hands_off(connection)
    except (ValueError, TypeError, AttributeError, SQLAlchemyError, zstandard.ZstdError) as error:
        raise DamagedBackup(
            f"The rows of the backup {folder} do not fit its schema, and none was kept: {_first_line(error)}. "
            "Take another backup."
        ) from error
    db.migrate(engine)
    with db.session(engine) as session:  # by now the columns are there, whatever the backup's schema was
        unknown = update(Cluster).where(col(Cluster.paused), col(Cluster.paused_since).is_(None))
        session.connection().execute(unknown.values(paused_by="evalyard restore", paused_since=datetime.now(UTC)))
    db.analyze(engine)
    resume = f"{program()} cluster resume NAME"
    paused = f" Launching is paused ({', '.join(clusters)}); go on with {resume}." if clusters else ""
    start = f"Start the system: {program()} up --data {settings.data}"
    return f"Restored {_contents(manifest)} from {folder}.{paused} {start}"


def _take_hands_off(connection: Connection) -> list[str]:
    """The hub that was backed up may live: its launched workers are not this one's, which launches none unasked.

    Returns the names of the clusters.
    """
    if not inspect(connection).has_table("cluster"):
        return []
    names = sorted(connection.execute(select(Cluster.name)).scalars())
    for name in names:
        values = {"token": secrets.token_hex(6), "paused": True}
        connection.execute(update(Cluster).where(col(Cluster.name) == name).values(**values))
    return names


def present_database(settings: HubSettings, *, what: str) -> Engine:
    """The database that is there: a backup of one that was only just made would look like a backup. `what` there is
    nothing of where it is not, such as "to publish".

    Raises:
        Refused: there is none, or it has no table.
    """
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        return db.make_engine(settings.database_url)  # says what is wrong with the address
    is_there = url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()
    if is_there:
        engine = db.make_engine(settings.database_url)
        try:
            is_there = bool(inspect(engine).get_table_names())
        except SQLAlchemyError:
            return engine  # migrating says why it cannot be used
        if is_there:
            return engine
    here = f" `--data {found}` is the one in this folder." if (found := data_here()) else ""
    raise Refused(
        f"There is nothing {what} in {_place(settings)}: no Evalyard has worked there. "
        f"Give the data folder of your system with --data; it names that folder when it starts.{here}"
    )


def _place(settings: HubSettings) -> str:
    """Where the rows are, for people: the data folder where that holds them."""
    url = make_url(settings.database_url)
    own = url.get_backend_name() == "sqlite" and Path(url.database or "").parent == settings.data
    return str(settings.data) if own else url.render_as_string(hide_password=True)


def _copy_artifacts_out(store: ArtifactStore, folder: Path, tell: Progress) -> dict[str, dict[str, Any]]:
    keys = [key for prefix in PREFIXES for key in store.list(prefix)]
    copied: dict[str, dict[str, Any]] = {}
    for number, key in enumerate(keys, start=1):
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        source = store.fetch_file(key, folder)
        if source != target:
            shutil.copyfile(source, target)
        copied[key] = {"bytes": target.stat().st_size, "sha256": file_sha256(target)}
        tell("artifacts", number, len(keys))
    return copied


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise DamagedBackup(
            f"{folder} is no complete backup: it has no manifest.json. Name a folder that `evalyard backup` finished."
        ) from error
    except ValueError as error:
        raise DamagedBackup(f"{folder}/manifest.json cannot be read: {error}. Take another backup.") from error
    if not _is_sound(manifest):
        raise DamagedBackup(f"{folder}/manifest.json is not what `evalyard backup` writes. Take another backup.")
    if manifest.get("format") != FORMAT or manifest.get("schema") not in db.known_revisions():
        raise Refused(
            f"The backup {folder} was made by a newer Evalyard (schema {manifest.get('schema')}). "
            "Upgrade this Evalyard first."
        )
    return manifest


def _is_sound(manifest: Any) -> bool:
    """Whether every name in it is one that a backup has: none may lead out of the backup's folder."""
    if not isinstance(manifest, dict):
        return False
    if manifest.get("format") != FORMAT:
        return True  # its own sentence follows
    return (
        _are_files(manifest.get("tables"), counted="rows")
        and _are_files(manifest.get("artifacts"), counted="bytes")
        and all(TABLE.fullmatch(name) and name != "alembic_version" for name in manifest["tables"])
        and all(is_key(key) and key.split("/")[0] in PREFIXES for key in manifest["artifacts"])
    )


def _are_files(files: Any, *, counted: str) -> bool:
    return isinstance(files, dict) and all(
        isinstance(facts, dict) and isinstance(facts.get("sha256"), str) and isinstance(facts.get(counted), int)
        for facts in files.values()
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise DamagedBackup(f"The backup lacks {path}. Take another backup.")
    if file_sha256(path) != sha256:
        raise DamagedBackup(f"{path} is damaged: its bytes do not match the manifest. Take another backup.")


def _contents(manifest: dict[str, Any]) -> str:
    rows = sum(table["rows"] for table in manifest["tables"].values())
    megabytes = sum(artifact["bytes"] for artifact in manifest["artifacts"].values()) / 1e6
    return f"{rows:,} rows and {len(manifest['artifacts']):,} artifacts ({megabytes:,.1f} MB)"
