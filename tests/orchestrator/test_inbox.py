"""The hub's reader of messages, with a real Valkey; its readers are called in turn."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy.exc import OperationalError

from orchestrator import broker, inbox
from orchestrator.inbox import Inbox
from orchestrator.tasks import Letter
from orchestrator.wire import Update
from tests.services import valkey


@dataclass
class Hub:
    """What readers hand their messages to."""

    app: Celery
    goes: list[str] = field(default_factory=list)
    """The attempts of each go, one letter each."""
    fault: BaseException | None = None
    poison: str = ""
    """An attempt with which nothing can be taken."""

    def take(self, letters: Sequence[Letter]) -> None:
        if self.fault is not None:
            raise self.fault
        if any(letter.payload["attempt"] == self.poison for letter in letters):
            raise RuntimeError("a fault")
        self.goes.append("".join(letter.payload["attempt"] for letter in letters))

    def send(self, attempts: Sequence[str]) -> None:
        for attempt in attempts:
            broker.send_update(self.app, Update(attempt=attempt, worker="w", at=datetime.now(UTC), event="started"))

    def reader(self) -> Inbox:
        return Inbox(self.app, self.take, stopping=threading.Event())


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with valkey(tmp_path / "valkey") as server:
        yield Hub(broker.make_app(server.url, name="test"))


def test_what_waits_is_taken_in_one_go_and_in_the_order_in_which_it_came(hub: Hub) -> None:
    hub.send("abc")
    assert hub.reader().read_once(wait=1) == 3
    assert hub.goes == ["abc"]
    assert broker.waiting_messages(hub.app, broker.CONTROL_QUEUE) == 0
    assert hub.reader().read_once(wait=1) == 0


def test_no_more_than_a_few_are_taken_at_once(hub: Hub) -> None:
    hub.send("a" * (inbox.MOST + 1))
    reader = hub.reader()
    assert [reader.read_once(wait=1), reader.read_once(wait=1)] == [inbox.MOST, 1]


def test_a_message_that_is_too_large_is_not_parsed_and_keeps_no_other_waiting(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Inbox(hub.app, lambda letters: hub.goes.extend(one.task for one in letters), stopping=threading.Event())
    hub.send("a" * 2)
    hub.send(["b" * 5000])
    monkeypatch.setattr(broker, "MOST_RAW_BYTES", 5000)
    reader.read_once(wait=1)
    assert hub.goes == [broker.UPDATE_TASK, broker.UPDATE_TASK]
    assert "message_too_large bytes=" in caplog.text


def test_what_the_database_could_not_take_is_taken_again_before_anything_else(hub: Hub) -> None:
    hub.send("ab")
    reader = hub.reader()
    hub.fault = OperationalError("COMMIT", {}, Exception("away"))
    with pytest.raises(OperationalError):
        reader.read_once(wait=1)
    hub.fault = None
    hub.send("c")
    reader.read_once(wait=1)
    reader.read_once(wait=1)
    assert hub.goes == ["ab", "c"]


def test_messages_that_meet_a_fault_of_the_hub_do_not_keep_others_waiting(hub: Hub) -> None:
    hub.send("a")
    reader = hub.reader()
    hub.fault = RuntimeError("a fault")
    reader.read_once(wait=1)
    hub.fault = None
    hub.send("b")
    reader.read_once(wait=1)
    assert hub.goes == ["b"]


def test_a_message_that_meets_a_fault_of_the_hub_takes_no_other_with_it(hub: Hub) -> None:
    hub.poison = "b"
    hub.send("abc")
    reader = hub.reader()
    reader.read_once(wait=1)
    hub.send("d")
    reader.read_once(wait=1)
    assert hub.goes == ["a", "c", "d"]


def test_what_a_silent_reader_held_is_taken_by_another_and_what_a_living_one_holds_is_not(hub: Hub) -> None:
    hub.send("ab")
    hub.fault = SystemExit()
    with pytest.raises(SystemExit):
        hub.reader().read_once(wait=1)
    hub.fault = None
    hub.send("c")
    other = hub.reader()
    other.read_once(wait=1)
    assert hub.goes == ["c"]
    client = broker.open_client(hub.app)
    for sign in client.keys(inbox.QUEUE + ".reader:*"):
        client.delete(sign)  # as after some seconds of silence
    while other.read_once(wait=1):
        pass
    assert "".join(hub.goes) == "cab"


def test_a_reader_that_wakes_while_it_is_taken_for_dead_is_not_forgotten(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.send("a")
    sleeper, other = hub.reader(), hub.reader()
    client = broker.open_client(hub.app)
    sleeper.read_once(wait=1)
    client.delete(*client.keys(inbox.QUEUE + ".reader:*"))  # as after some seconds of silence
    move = other._client.lmove

    def wakes_and_is_killed(*of: Any) -> Any:
        moved = move(*of)
        if moved is None and of[1] == inbox.QUEUE:
            monkeypatch.undo()
            hub.send("b")
            hub.fault = SystemExit()
            with pytest.raises(SystemExit):
                sleeper.read_once(wait=1)
            hub.fault = None
        return moved

    monkeypatch.setattr(other._client, "lmove", wakes_and_is_killed)
    hub.send("c")
    other.read_once(wait=1)
    client.delete(*client.keys(inbox.QUEUE + ".reader:*"))
    while other.read_once(wait=1):
        pass
    assert sorted("".join(hub.goes)) == ["a", "b", "c"]


def test_a_reader_that_ends_in_good_order_leaves_what_it_could_not_apply_to_the_next_at_once(hub: Hub) -> None:
    hub.send("a")
    stopping = threading.Event()

    def away(letters: Sequence[Letter]) -> None:
        stopping.set()
        raise OperationalError("COMMIT", {}, Exception("away"))

    Inbox(hub.app, away, stopping=stopping).run()
    reader = hub.reader()
    reader.read_once(wait=1)
    reader.read_once(wait=1)
    assert hub.goes == ["a"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b"[]", b'{"body": 7}', b'{"body": "e30=", "properties": {}}', b"[" * 100_000]
)
def test_what_is_no_message_is_a_letter_of_no_kind(raw: bytes) -> None:
    assert inbox.letter(raw) == Letter("", None)
