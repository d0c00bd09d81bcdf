import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from sqlalchemy import MetaData, select, text

from orchestrator import admin, db
from orchestrator.artifacts import ArtifactStore, file_sha256
from orchestrator.errors import Refused
from orchestrator.rows import plain
from orchestrator.settings import HubSettings
from orchestrator.tables import Cluster
from tests.orchestrator.yard import Yard


def settings_for(folder: Path, url: str) -> HubSettings:
    return HubSettings(data=folder, database_url=url, artifacts_url=(folder / "artifacts").as_uri())


def fill(settings: HubSettings) -> Yard:
    """A hub with one finished evaluation, one in the middle, and artifacts."""
    engine = db.make_engine(settings.database_url)
    db.migrate(engine)
    yard = Yard(engine)
    yard.workers()
    yard.submit()
    yard.finish()
    yard.submit()
    yard.tick()
    store = ArtifactStore(settings.artifacts_url)
    store.put_bytes("sheets/1/ARC/a/sheet.json", b"{}")
    store.put_bytes("responses/d1/a/000000-0011.jsonl.zst", b"\x00\xff" * 1000)
    return yard


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    engine = db.make_engine(url)
    metadata = MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection)
        return {
            table.name: [
                {key: plain(value) for key, value in row.items()}
                for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in metadata.sorted_tables
        }


@pytest.mark.parametrize("direction", ["sqlite to postgresql", "postgresql to sqlite", "sqlite to sqlite"])
def test_a_restored_hub_has_the_same_rows_and_artifacts_and_goes_on(
    direction: str, tmp_path: Path, postgres_url: str
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}/new/x.db", "postgresql": postgres_url}
    source, target = direction.split(" to ")
    old = settings_for(tmp_path / "old", urls[source] if source == "postgresql" else f"sqlite:///{tmp_path}/old/x.db")
    new = settings_for(tmp_path / "new", urls[target])
    fill(old)
    told: list[tuple[str, int, int]] = []
    done = admin.backup(old, tmp_path / "backup", progress=lambda *step: told.append(step))
    assert told[-1] == ("artifacts", 2, 2)
    assert " and 2 artifacts (0.0 MB)" in done
    assert " and 2 artifacts (0.0 MB)" in admin.restore(new, tmp_path / "backup")
    assert rows(new.database_url) == rows(old.database_url)
    if target == "postgresql":  # it need not look by itself before it plans queries well
        with db.make_engine(new.database_url).connect() as connection:
            known = select(text("reltuples")).select_from(text("pg_class")).where(text("relname = 'job'"))
            assert connection.execute(known).scalar_one() == len(rows(new.database_url)["job"])
    store = ArtifactStore(new.artifacts_url)
    assert store.read_bytes("responses/d1/a/000000-0011.jsonl.zst") == b"\x00\xff" * 1000

    yard = Yard(db.make_engine(new.database_url), keys=10)
    yard.wait(3600)
    yard.workers()
    third = yard.submit()
    assert third == 3
    yard.reap()
    yard.finish()
    assert [yard.evaluation(number).state.value for number in (1, 2, 3)] == ["finished"] * 3


def test_a_restored_hub_launches_nothing_and_leaves_the_first_one_s_workers_alone(tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    yard = fill(old)
    with db.session(yard.engine) as session:
        session.add(Cluster(name="lent", kind="slurm", token="of the first"))
    admin.backup(old, tmp_path / "backup")
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    assert "Launching is paused" in admin.restore(new, tmp_path / "backup")
    with db.session(db.make_engine(new.database_url), read_only=True) as session:
        cluster = session.get_one(Cluster, "lent")
    assert (cluster.paused, cluster.paused_by) == (True, "evalyard restore")
    assert cluster.paused_since is not None
    assert cluster.token != "of the first"


def test_restore_never_overwrites_a_database(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(settings)
    admin.backup(settings, tmp_path / "backup")
    before = rows(settings.database_url)
    with pytest.raises(Refused, match=r"is not empty, and restore never overwrites.*--data"):
        admin.restore(settings, tmp_path / "backup")
    assert rows(settings.database_url) == before


def test_restore_leaves_a_store_with_other_artifacts_alone(tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    ArtifactStore(new.artifacts_url).put_bytes("results/9/x/y/results.json", b"mine")
    with pytest.raises(Refused, match=r"results/9/x/y/results\.json"):
        admin.restore(new, tmp_path / "backup")


@pytest.mark.parametrize("where", ["artifacts", "tables"])
def test_an_interrupted_restore_can_be_run_again(where: str, tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")

    def interrupt(what: str, done: int, total: int) -> None:
        if what == where:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admin.restore(new, tmp_path / "backup", progress=interrupt)
    admin.restore(new, tmp_path / "backup")
    assert rows(new.database_url) == rows(old.database_url)


def test_a_damaged_backup_is_refused_before_the_database_is_touched(tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    (tmp_path / "backup/artifacts/sheets/1/ARC/a/sheet.json").write_bytes(b"[]")
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    with pytest.raises(admin.DamagedBackup, match=r"sheet\.json is damaged"):
        admin.restore(new, tmp_path / "backup")
    assert rows(new.database_url) == {}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("artifacts", "../../outside"),
        ("artifacts", "/etc/hostname"),
        ("artifacts", "elsewhere/x"),
        ("tables", "../evaluation"),
        ("tables", "alembic_version"),
    ],
)
def test_a_backup_names_nothing_outside_itself(part: str, name: str, tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    content = json.loads(manifest.read_text())
    content[part][name] = next(iter(content[part].values()))
    manifest.write_text(json.dumps(content))
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    with pytest.raises(admin.DamagedBackup, match="not what `evalyard backup` writes"):
        admin.restore(new, tmp_path / "backup")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"format": 1}', '{"format": 1, "tables": [], "artifacts": {}}'])
def test_a_manifest_that_is_something_else_is_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(admin.DamagedBackup, match="Take another backup"):
        admin.restore(settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db"), tmp_path)


@pytest.mark.parametrize("row", [b"[]", b'{"id": 1, "no_such_column": 2}', b'{"id": 1}', b"{"])
def test_rows_that_do_not_fit_are_refused_and_none_is_kept(row: bytes, tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    rows_file = tmp_path / "backup" / "database" / "score.jsonl.zst"
    rows_file.write_bytes(zstandard.compress(row + b"\n"))
    manifest = tmp_path / "backup" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tables"]["score"]["sha256"] = file_sha256(rows_file)
    manifest.write_text(json.dumps(content))
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    with pytest.raises(admin.DamagedBackup, match="none was kept"):
        admin.restore(new, tmp_path / "backup")
    assert not any(found for name, found in rows(new.database_url).items() if name != "alembic_version")


def test_an_unfinished_backup_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    with pytest.raises(admin.DamagedBackup, match=r"no manifest\.json"):
        admin.restore(new, tmp_path / "backup")


def test_a_backup_does_not_mix_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refused, match="not empty"):
        admin.backup(settings_for(tmp_path / "data", ""), tmp_path)


def test_a_backup_of_a_newer_evalyard_is_refused(tmp_path: Path) -> None:
    old = settings_for(tmp_path / "old", f"sqlite:///{tmp_path}/old/x.db")
    fill(old)
    admin.backup(old, tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"{db.head_revision()}"', '"9999"'))
    new = settings_for(tmp_path / "new", f"sqlite:///{tmp_path}/new/x.db")
    with pytest.raises(Refused, match=r"newer Evalyard \(schema 9999\)"):
        admin.restore(new, tmp_path / "backup")


def test_a_folder_without_a_system_is_not_backed_up_and_gets_no_database(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "wrong", f"sqlite:///{tmp_path}/wrong/evalyard.db")
    with pytest.raises(Refused, match=r"nothing to back up in .*wrong.*--data"):
        admin.backup(settings, tmp_path / "backup")
    assert not (tmp_path / "wrong").exists()
    assert not (tmp_path / "backup").exists()


def test_a_database_without_a_table_is_not_backed_up(tmp_path: Path) -> None:
    (tmp_path / "evalyard.db").touch()
    with pytest.raises(Refused, match="nothing to back up"):
        admin.backup(settings_for(tmp_path, f"sqlite:///{tmp_path}/evalyard.db"), tmp_path / "backup")
