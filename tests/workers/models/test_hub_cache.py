"""The bounded folder of downloads, with a Hub on the loopback address and real downloads."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from orchestrator.wire import FailureKind
from tests.hub_stub import HubStub, sha_of
from tests.services import wait_until
from tests.workers.downloads import MODEL_BYTES, Host, hub_with_models, model
from workers.models.hub_cache import NoRoom, kept_free
from workers.models.weights import ModelUnavailable, Weights


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    with hub_with_models(monkeypatch, tmp_path) as stub:
        yield stub


def test_what_was_used_longest_ago_goes_out_first(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    for name in ("org/a", "org/b", "org/a", "org/c"):
        folder = host.fetch(name)
        assert (folder / "model.safetensors").stat().st_size == MODEL_BYTES
        assert not (folder / "pytorch_model.bin").exists()
    assert host.kept() == {"org/a", "org/c"}
    assert host.weights.on_disk(10) == (sha_of("org/c"), sha_of("org/a"))
    assert host.weights.on_disk(1) == (sha_of("org/c"),)
    assert hub.fetched.count("org/a/model.safetensors") == 1
    host.fetch("org/b")
    assert hub.fetched.count("org/b/model.safetensors") == 2


def test_what_a_running_attempt_uses_stays_whoever_asks_for_room(tmp_path: Path, hub: HubStub):
    host, neighbour = Host(tmp_path), Host(tmp_path)
    with host.weights.used_by("a1"):
        used = host.fetch("org/a", attempt="a1")
        for name in ("org/b", "org/c", "org/d"):
            neighbour.fetch(name)
            assert (used / "model.safetensors").exists()
        assert host.kept() == {"org/a", "org/d"}
    neighbour.fetch("org/b")
    neighbour.fetch("org/c")
    assert host.kept() == {"org/b", "org/c"}


def test_an_order_that_comes_twice_does_not_give_up_what_the_first_uses(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path, limit=MODEL_BYTES + 1000)
    with host.weights.used_by("a1"):
        host.fetch("org/a", attempt="a1")
        with host.weights.used_by("a1"):
            pass
        with pytest.raises(NoRoom):
            host.fetch("org/b")


def test_without_room_beside_what_is_used_nothing_is_deleted_and_the_next_try_may_succeed(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    with host.weights.used_by("a1"), host.weights.used_by("a2"):
        host.fetch("org/a", attempt="a1")
        host.fetch("org/b", attempt="a2")
        with pytest.raises(NoRoom, match=r"EVALYARD_WORKER_WEIGHTS_BYTES") as error:
            host.fetch("org/c")
        assert error.value.kind is FailureKind.STORAGE
        assert host.kept() == {"org/a", "org/b"}
        assert "org/c/model.safetensors" not in hub.fetched
    host.fetch("org/c")
    assert "org/c" in host.kept()


def test_a_model_larger_than_the_whole_budget_is_refused_before_it_is_fetched(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path, limit=MODEL_BYTES // 2)
    with pytest.raises(ModelUnavailable, match=r"org/a takes 1 MB.* no more than 0\.5 MB") as error:
        host.fetch("org/a")
    assert error.value.kind is FailureKind.TOO_LARGE
    assert hub.fetched == []


@contextmanager
def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Inside, the process ends at the next file or folder that it would delete, after so many of them."""
    deleted: list[str] = []

    def stopping(original: Callable[..., None]) -> Callable[..., None]:
        def delete(path: Any, *arguments: Any, **named: Any) -> None:
            if len(deleted) >= steps:
                raise Killed
            deleted.append(str(path))
            original(path, *arguments, **named)

        return delete

    with monkeypatch.context() as patch:
        for name in ("unlink", "remove", "rmdir"):
            patch.setattr(os, name, stopping(getattr(os, name)))
        yield deleted


class Killed(BaseException):
    pass


def test_what_is_half_deleted_when_the_process_ends_is_fetched_again(
    tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch
):
    for name in ("org/a", "org/b"):
        (tmp_path / "repositories" / name / "generation_config.json").write_text("{}")
    for steps in range(100):
        (tmp_path / str(steps)).mkdir()
        host = Host(tmp_path / str(steps), limit=MODEL_BYTES + 1000)
        host.fetch("org/a")
        with killed_after(steps, monkeypatch) as deleted:
            try:
                host.fetch("org/b")
                break
            except Killed:
                assert len(deleted) == steps
        assert host.weights.on_disk(10) == ()
        found = host.fetch("org/a")
        assert {path.name for path in found.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
        assert (found / "model.safetensors").stat().st_size == MODEL_BYTES
        found = host.fetch("org/b")
        assert (found / "generation_config.json").read_text() == "{}"
        assert {path.name for path in host.cache.hub.glob("models--*")} == {"models--org--b"}
    assert steps > 5


def test_a_file_that_is_lost_from_a_whole_model_is_fetched_again(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    folder = host.fetch("org/a")
    (folder / "config.json").unlink()
    assert not host.weights.has(model("org/a"))
    assert (host.fetch("org/a") / "config.json").is_file()
    (folder / "model.safetensors").resolve().write_bytes(b"cut")
    assert not host.weights.has(model("org/a"))


def test_half_a_model_is_never_taken_for_a_whole_when_the_hub_is_away(
    tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch
):
    huggingface_hub.snapshot_download("org/a", revision=sha_of("org/a"), allow_patterns="*.safetensors")
    for trees in Path(constants.HF_HUB_CACHE).rglob("trees"):
        shutil.rmtree(trees)  # as an older huggingface_hub leaves it: nobody knows what belongs to it
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for weights in (Host(tmp_path).weights, Weights(mirror=None, token=None, digests=tmp_path / "digests.json")):
        with pytest.raises(ModelUnavailable, match="could not be fetched") as error:
            weights.resolve(model("org/a"), weights=True)
        assert error.value.kind is FailureKind.DOWNLOAD


def test_a_disk_without_locks_is_refused_with_a_sentence(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch):
    def none(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(ModelUnavailable, match=r"cannot be locked \(No locks available\).*EVALYARD_WORKER_WEIGHTS"):
        Host(tmp_path).fetch("org/a")


def test_locks_are_asked_for_as_nfs_gives_them(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch):
    original = fcntl.flock

    def as_on_nfs(file: Any, how: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if mode != os.O_RDWR and mode != (os.O_RDONLY if how & fcntl.LOCK_SH else os.O_WRONLY):
            raise OSError(errno.EBADF, "Bad file descriptor")
        original(file, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    host = Host(tmp_path)
    with host.weights.used_by("a1"):
        host.fetch("org/a", attempt="a1")
        for name in ("org/b", "org/c"):
            host.fetch(name)
    assert host.kept() == {"org/a", "org/c"}


def test_files_beside_the_weights_that_would_fill_the_disk_are_refused(tmp_path: Path, hub: HubStub):
    (tmp_path / "repositories" / "org" / "a" / "vocab.txt").write_text("a")
    hub.sizes["org/a/vocab.txt"] = 400 * 10**9
    for weights in (True, False):
        with pytest.raises(ModelUnavailable, match=r"take 400 GB, most of it vocab\.txt") as error:
            Host(tmp_path, limit=None).fetch("org/a", weights=weights)
        assert error.value.kind is FailureKind.TOO_LARGE
    assert hub.fetched == []


def cut_weights(patch: pytest.MonkeyPatch) -> None:
    """Let downloads of weights break off."""
    original = huggingface_hub.file_download.http_get

    def cut(url: str, *arguments: Any, **named: Any) -> None:
        if "safetensors" in url:
            raise ConnectionResetError("cut")
        original(url, *arguments, **named)

    patch.setattr(huggingface_hub.file_download, "http_get", cut)


def test_what_was_refused_or_broke_off_reserves_no_room(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch):
    host = Host(tmp_path)
    with host.weights.used_by("a1"), host.weights.used_by("a2"):
        host.fetch("org/a", attempt="a1")
        host.fetch("org/b", attempt="a2")
        with pytest.raises(NoRoom):
            host.fetch("org/c")
    with monkeypatch.context() as patch:
        cut_weights(patch)
        with pytest.raises(ModelUnavailable, match="cut"):
            host.fetch("org/d")
    with host.weights.used_by("a3"):
        host.fetch("org/c", weights=False, attempt="a3")
        host.fetch("org/d", weights=False, attempt="a3")
        host.fetch("org/a")
        host.fetch("org/b")
        assert host.kept() == {"org/a", "org/b"}


def test_a_tokenizer_is_fetched_even_when_weights_find_no_room(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path, limit=1)
    assert sorted(path.name for path in host.fetch("org/a", weights=False).iterdir()) == ["config.json"]
    assert host.weights.on_disk(10) == ()
    larger = Host(tmp_path)
    larger.fetch("org/a")
    larger.fetch("org/a", weights=False)
    assert larger.weights.on_disk(10) == (sha_of("org/a"),)


def test_a_model_that_is_wanted_by_many_at_once_is_fetched_once(tmp_path: Path, hub: HubStub):
    hosts = [Host(tmp_path) for _ in range(4)]
    hub.open.clear()
    threads = [threading.Thread(target=host.fetch, args=("org/a",)) for host in hosts]
    for thread in threads:
        thread.start()
    wait_until(lambda: "org/a/model.safetensors" in hub.fetched, "the download has begun")
    hub.open.set()
    for thread in threads:
        thread.join()
    assert hub.fetched.count("org/a/model.safetensors") == 1
    assert hosts[0].kept() == {"org/a"}


def test_what_is_being_fetched_counts_as_if_it_were_here_and_stays(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    host.fetch("org/a")
    hub.open.clear()
    slow = threading.Thread(target=host.fetch, args=("org/b",))
    slow.start()
    wait_until(lambda: "org/b/model.safetensors" in hub.fetched, "the download has begun")
    quick = threading.Thread(target=host.fetch, args=("org/c",))
    quick.start()
    wait_until(lambda: "org/c/model.safetensors" in hub.fetched, "the other has begun")
    assert host.kept() == set()
    hub.open.set()
    slow.join()
    quick.join()
    assert host.kept() == {"org/b", "org/c"}


def test_what_a_killed_process_left_half_fetched_is_deleted(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    host.fetch("org/a")
    left = host.cache.hub / "models--org--a" / "blobs" / "x.1234.incomplete"
    left.write_bytes(b"x" * 5_000_000)
    host.fetch("org/b")
    assert not left.exists()


def test_a_download_that_broke_off_is_taken_up_again(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch):
    host = Host(tmp_path)
    with monkeypatch.context() as patch:
        cut_weights(patch)
        with pytest.raises(ModelUnavailable) as error:
            host.fetch("org/a")
    assert error.value.kind is FailureKind.DOWNLOAD
    assert host.weights.on_disk(10) == ()
    # Another process of the host does not know what the first one meant to fetch.
    assert (Host(tmp_path).fetch("org/a") / "model.safetensors").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_disk_that_fills_up_gets_room_once(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch, times: int):
    host = Host(tmp_path, limit=100 * MODEL_BYTES)
    host.fetch("org/a")
    host.fetch("org/b")
    original = huggingface_hub.file_download.http_get
    left = [times]

    def fill_up(url: str, *arguments: Any, **named: Any) -> None:
        if "safetensors" in url and left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        original(url, *arguments, **named)

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", fill_up)
    if times == 1:
        host.fetch("org/c")
        assert host.kept() == {"org/b", "org/c"}
    else:
        with pytest.raises(ModelUnavailable, match="The worker's disk is full") as error:
            host.fetch("org/c")
        assert error.value.kind is FailureKind.STORAGE
        assert host.kept() == {"org/b"}


def test_a_full_disk_with_nothing_to_delete_is_said(tmp_path: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    with pytest.raises(ModelUnavailable, match="no other downloads that could be deleted") as error:
        Host(tmp_path).fetch("org/a")
    assert not isinstance(error.value, NoRoom)  # waiting would not help


def test_a_fetched_model_is_used_when_the_hub_is_away(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    folder = host.fetch("org/a")
    hub.status = 503
    asked = len(hub.requests)
    assert host.fetch("org/a") == folder
    assert len(hub.requests) == asked


def test_a_model_in_the_users_own_cache_is_used_there_and_never_deleted(tmp_path: Path, hub: HubStub):
    own = Path(huggingface_hub.snapshot_download("org/a", revision=sha_of("org/a")))
    assert own.is_relative_to(constants.HF_HUB_CACHE)
    host = Host(tmp_path)
    assert host.fetch("org/a") == own
    for name in ("org/b", "org/c", "org/d"):
        host.fetch(name)
    assert (own / "model.safetensors").exists()
    assert host.kept() == {"org/c", "org/d"}


def test_half_a_model_in_the_users_own_cache_is_not_taken_for_a_whole(tmp_path: Path, hub: HubStub):
    huggingface_hub.snapshot_download("org/a", revision=sha_of("org/a"), allow_patterns="config.json")
    assert Host(tmp_path).fetch("org/a").is_relative_to(tmp_path / "weights")


def test_a_model_that_is_wanted_soon_goes_out_last(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    host.fetch("org/a")
    host.fetch("org/b")
    host.weights.expect([model("org/a")])
    host.fetch("org/c")
    assert host.kept() == {"org/a", "org/c"}


def test_of_two_models_that_are_wanted_soon_the_first_goes_out_last_and_neither_counts_as_used(
    tmp_path: Path, hub: HubStub
):
    host = Host(tmp_path)
    host.fetch("org/a")
    host.fetch("org/b")
    host.weights.expect([model("org/a"), model("org/b")])
    assert host.weights.on_disk(10) == (sha_of("org/b"), sha_of("org/a"))
    host.fetch("org/c")
    assert host.kept() == {"org/a", "org/c"}


def test_a_tenth_of_the_disk_stays_free_and_no_more_than_20_gb():
    assert kept_free(100 * 10**9) == 10 * 10**9
    assert kept_free(4000 * 10**9) == 20 * 10**9
