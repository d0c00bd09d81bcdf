from pathlib import Path

import pytest

from workers.settings import WorkerSettingsError, read_worker_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALYARD_BROKER_URL", "redis://:passphrase@host/0")
    monkeypatch.setenv("EVALYARD_ARTIFACTS_URL", "file:///srv")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EVALYARD_BROKER_URL")
    with pytest.raises(WorkerSettingsError, match="EVALYARD_BROKER_URL is not set"):
        read_worker_settings(kind="engine")


def test_a_setting_that_does_not_exist_stops_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALYARD_WORKER_SLOT", "2")
    with pytest.raises(WorkerSettingsError, match="EVALYARD_WORKER_SLOT"):
        read_worker_settings(kind="engine")


def test_the_command_line_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALYARD_WORKER_NAME", "a")
    assert read_worker_settings(kind="engine", worker_name="b").name == "b"
    assert read_worker_settings(kind="engine", worker_name=None).name == "a"


@pytest.mark.parametrize("name", ["a b", "../x", "-x"])
def test_a_name_that_makes_no_queue_is_refused(name: str):
    with pytest.raises(WorkerSettingsError, match="EVALYARD_WORKER_NAME"):
        read_worker_settings(kind="engine", worker_name=name)


def test_secrets_do_not_show_in_what_is_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALYARD_HUB_TOKEN", "hf_secretsecretsecret")
    assert "passphrase" not in repr(read_worker_settings(kind="engine"))
    assert "hf_secret" not in repr(read_worker_settings(kind="engine"))


@pytest.mark.parametrize(("said", "size"), [("500GB", 500 * 10**9), ("2TiB", 2 * 2**40), ("1000", 1000)])
def test_a_budget_is_said_as_people_say_sizes(monkeypatch: pytest.MonkeyPatch, said: str, size: int):
    monkeypatch.setenv("EVALYARD_WORKER_WEIGHTS_BYTES", said)
    assert read_worker_settings(kind="engine").worker_weights_bytes == size


@pytest.mark.parametrize("said", ["0", "-1GB", "much", "5 apples"])
def test_a_budget_that_is_no_size_stops_the_start(monkeypatch: pytest.MonkeyPatch, said: str):
    monkeypatch.setenv("EVALYARD_WORKER_WEIGHTS_BYTES", said)
    with pytest.raises(WorkerSettingsError, match="EVALYARD_WORKER_WEIGHTS_BYTES"):
        read_worker_settings(kind="engine")


def test_weights_never_lie_where_each_start_deletes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("EVALYARD_WORKER_SCRATCH", str(tmp_path))
    monkeypatch.setenv("EVALYARD_WORKER_WEIGHTS", str(tmp_path / "weights"))
    assert read_worker_settings(kind="engine", worker_name="gpu-1").worker_weights == tmp_path / "weights"
    with pytest.raises(WorkerSettingsError, match="emptied at each start"):
        read_worker_settings(kind="engine", worker_name="weights")
