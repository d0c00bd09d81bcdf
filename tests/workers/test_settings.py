from datetime import UTC, datetime
from pathlib import Path

import pytest

from workers.idle.idleness import GpuPolicy
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


@pytest.mark.parametrize(
    ("name", "said", "answer"),
    [
        ("SLOT", "2", r"no setting EVALYARD_WORKER_SLOT\. Did you mean EVALYARD_WORKER_SLOTS\?"),
        ("SLOTS", "two", r"EVALYARD_WORKER_SLOTS: 'two' is no whole number\. Write one in digits\."),
        ("SLOTS", "0", r"'0' is too small\. Give at least 1\."),
        ("HEARTBEAT_SECONDS", "100", r"'100' is too large\. Give at most 20\."),
        ("GPU_POLICY", "alway", r"'alway' is none of idle, always\. Did you mean 'always'\?"),
        ("GPUS", "nvidia", r"'nvidia' is neither nvml nor fake:PATH\."),
        ("WEIGHTS_BYTES", "5 apples", r"'5 apples' is no size\. Write it as 500GB or 2TiB\."),
        ("ENGINE_SETTINGS", "{bad", r"is not the JSON that is wanted\. Write it like \{"),
        ("ENGINE_SETTINGS", "[1]", r"is not the JSON that is wanted\. Write it like \{"),
        ("TASK_FOLDERS", "/srv/tasks", r"is not the JSON that is wanted\. Write it like \["),
        ("WINDOWS", "weekends", r"EVALYARD_WORKER_WINDOWS: 'weekends' is no window\. Write windows as"),
        ("TIME_ZONE", "Europe/Berln", r"EVALYARD_WORKER_TIME_ZONE: this host knows no time zone 'Europe/Berln'"),
    ],
)
def test_a_mistyped_setting_stops_the_start_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str, answer: str
):
    monkeypatch.setenv(f"EVALYARD_WORKER_{name}", said)
    with pytest.raises(WorkerSettingsError, match=answer):
        read_worker_settings(kind="engine")


def test_a_mistyped_name_of_a_needed_setting_is_pointed_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EVALYARD_BROKER_URL")
    monkeypatch.setenv("EVALYARD_BROKR_URL", "redis://host/0")
    with pytest.raises(WorkerSettingsError, match="EVALYARD_BROKER_URL is not set, and EVALYARD_BROKR_URL is not its"):
        read_worker_settings(kind="engine")


def test_no_value_of_a_setting_with_a_secret_is_repeated(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WorkerSettingsError) as refused:
        read_worker_settings(kind="engine", broker_url=b"\xff:passphrase")
    assert "passphrase" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_by_default_only_idle_gpus_are_used(monkeypatch: pytest.MonkeyPatch):
    settings = read_worker_settings(kind="engine")
    assert settings.gpu_policy == GpuPolicy(is_always=False, idle_seconds=300, memory_bytes=500_000_000)
    assert settings.windows.is_open(datetime.now(UTC))
    monkeypatch.setenv("EVALYARD_WORKER_GPU_POLICY", "always")
    monkeypatch.setenv("EVALYARD_WORKER_GPUS_LEFT_FREE", "2")
    assert read_worker_settings(kind="engine").gpu_policy == GpuPolicy(is_always=True, left_free=2)


def test_a_worker_that_a_launcher_started_has_its_gpus_to_itself_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    assert read_worker_settings(kind="engine", worker_until_idle_seconds=60.0).gpu_policy.is_always
    monkeypatch.setenv("EVALYARD_WORKER_GPU_POLICY", "idle")
    assert not read_worker_settings(kind="engine", worker_until_idle_seconds=60.0).gpu_policy.is_always
