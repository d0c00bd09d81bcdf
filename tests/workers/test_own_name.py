"""A worker's name, with a real Valkey: held by one process at a time."""

from collections.abc import Iterator

import pytest
import redis

from orchestrator import broker
from tests.services import Valkey, valkey
from tests.workers.bench import Bench
from workers.heartbeat import HeartbeatThread
from workers.own_name import NameTaken, OwnName


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def shared(server: Valkey) -> Valkey:
    redis.Redis.from_url(server.url).flushall()
    return server


def name(server: Valkey, boot: str, *, host: str = "node1", place: str = "p") -> OwnName:
    app = broker.make_app(server.url, name="test")
    return OwnName(app, "gpu-1", host=host, place=place, boot=boot, beat_seconds=5)


def at_once(seconds: float) -> None:
    """The pause of somebody who does not wait."""


def test_a_second_worker_of_a_name_is_turned_away_and_the_first_can_tell_of_it(shared: Valkey) -> None:
    first = name(shared, "a")
    first.take(pause=at_once)
    with pytest.raises(NameTaken, match="A worker named gpu-1 runs on host node1 already"):
        name(shared, "b", host="node2").take(pause=at_once)
    first.keep()
    assert "on host node2, was turned away" in first.refusal()
    assert "--name" in first.refusal()


def test_one_that_starts_in_the_folder_of_a_dead_one_has_its_name_at_once(shared: Valkey) -> None:
    name(shared, "a").take(pause=at_once)
    waits: list[float] = []
    again = name(shared, "b")
    again.take(pause=waits.append)
    again.keep()
    assert waits == []


def test_a_clone_of_a_worker_with_its_folder_is_turned_away_at_its_next_heartbeat(shared: Valkey) -> None:
    first = name(shared, "a")
    first.take(pause=at_once)
    name(shared, "b").take(pause=at_once)
    with pytest.raises(NameTaken):
        first.keep()


def test_a_name_is_free_once_its_worker_has_left_or_was_silent_for_long_enough(shared: Valkey) -> None:
    first = name(shared, "a")
    first.take(pause=at_once)
    ttl = redis.Redis.from_url(shared.url).ttl("evalyard:name:gpu-1")
    assert 0 < ttl <= first.seconds
    first.leave()
    second = name(shared, "b", host="node2")
    second.take(pause=at_once)
    first.leave()  # changes nothing now
    second.keep()


def test_another_waits_until_the_name_is_free(shared: Valkey) -> None:
    first, waits = name(shared, "a"), []
    first.take(pause=at_once)

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.leave()

    name(shared, "b", host="node2").take(pause=pause)
    assert len(waits) == 3


def test_a_worker_that_lost_its_name_says_so_and_ends_instead_of_beating(
    shared: Valkey, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    app = broker.make_app(shared.url, name="test")
    mine, ended = name(shared, "a"), []
    heart = HeartbeatThread(
        app,
        bench.supervisor,
        bench.settings,
        boot="a",
        own_name=mine,
        engine=None,
        weights=bench.weights,
        on_end=lambda: ended.append(True),
    )
    mine.take(pause=at_once)
    mine.leave()  # it stood still for too long
    name(shared, "b", host="node2").take(pause=at_once)
    heart.start()
    heart.join(20)
    assert ended == [True]
    assert "runs on host node2 already" in caplog.text
    assert broker.waiting_messages(app, broker.CONTROL_QUEUE) == 0
