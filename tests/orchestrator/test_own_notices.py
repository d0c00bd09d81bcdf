"""People's own targets: told of what is theirs, by addresses that nobody reads in the database, and never inwards."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from sqlmodel import select

from orchestrator import db
from orchestrator.errors import Refused, SettingsError
from orchestrator.notices import webhooks
from orchestrator.notices.notifier import Notifier
from orchestrator.notices.own import Own, Sender, mail_to
from orchestrator.notices.targets import Targets, read_targets
from orchestrator.people import Visibility
from orchestrator.sealing import Sealer
from orchestrator.tables import Delivery, OwnTarget, Person, Submission
from tests.orchestrator.yard import Yard

SEALER = Sealer(b"k" * 32)
HERE = frozenset({"127.0.0.1"})


@contextmanager
def listening(status: int = 200, *, location: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A service on this machine: its address, and what was posted to it."""
    taken: list[dict[str, Any]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def somebody(yard: Yard, name: str, *, url: str | None, blocked: bool = False) -> int:
    with db.session(yard.engine) as session:
        person = Person(
            issuer="i", subject=name, name=name, email=f"{name}@example.org", blocked=blocked,
            made_at=yard.now, seen_at=yard.now,
        )  # fmt: skip
        session.add(person)
        session.flush()
        assert person.id is not None
        if url is not None:
            session.add(OwnTarget(person_id=person.id, kind="webhook", sealed=SEALER.seal(url), made_at=yard.now))
        return person.id


def finished_for(yard: Yard, person: int, **facts: Any) -> int:
    evaluation = yard.submit()
    with db.session(yard.engine) as session:
        submission = session.exec(select(Submission).order_by(Submission.id.desc())).first()  # type: ignore[union-attr]
        assert submission is not None
        submission.person_id = person
        for name, value in facts.items():
            setattr(submission, name, value)
        session.add(submission)
    yard.workers()
    yard.finish()
    return evaluation


def notifier(yard: Yard, **sender: Any) -> Notifier:
    return Notifier(yard.engine, Targets(), lambda *_: "", Sender(SEALER, None, HERE)._replace(**sender))


def test_a_person_is_told_of_their_own_evaluation_with_its_name_though_it_is_private(yard: Yard) -> None:
    with listening() as (url, taken):
        ada, bob = somebody(yard, "ada", url=url), somebody(yard, "bob", url=None)
        mine = finished_for(yard, ada, visibility=Visibility.PRIVATE)
        finished_for(yard, bob)
        assert notifier(yard).round(yard.now) == 1
        assert notifier(yard).round(yard.now) == 0
    ((posted),) = taken
    assert [(one["event"], one["evaluation"], one["model"]) for one in posted["notices"]] == [
        ("evaluation_finished", mine, "org/m")
    ]
    assert posted["text"].startswith(f"Evaluation {mine} finished: org/m")


def test_whoever_is_blocked_is_told_nothing(yard: Yard) -> None:
    with listening() as (url, taken):
        finished_for(yard, somebody(yard, "eve", url=url, blocked=True))
        notifier(yard).round(yard.now)
    assert taken == []


def test_the_database_holds_no_address_in_clear_and_another_key_opens_none(yard: Yard) -> None:
    secret = "https://hooks.example.org/T0P5ECRET"
    ada = somebody(yard, "ada", url=secret)
    with db.session(yard.engine, read_only=True) as session:
        (row,) = session.exec(select(OwnTarget)).all()
    assert "hooks" not in row.sealed
    assert SEALER.open(row.sealed) == secret
    finished_for(yard, ada)
    notifier(yard, sealer=Sealer(b"x" * 32)).round(yard.now)
    with db.session(yard.engine, read_only=True) as session:
        (delivery,) = session.exec(select(Delivery)).all()
    assert (delivery.target, delivery.sentence) == (
        f"person:{ada}:webhook",
        "Its address was sealed with another key. Give it again.",
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/x", "https://127.0.0.1/x", "https://[::1]/x", "https://10.1.2.3/", "https://[fd00::1]/",
        "https://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
        "https://[64:ff9b:1::a00:1]/", "https://[fec0::1]/",
        "https://localhost/x", "https://2130706433/", "https://0x7f.1/",
        "https://[2002:a00:1::]/", "https://hooks.example.org:8443/", "https://u:p@hooks.example.org/", "file:///etc/passwd",
        "gopher://x/", "https://", "https://a b/", "https://hooks.example.org/\r\nX: y", "https://x/" + "y" * 1000, "",
    ],
)  # fmt: skip
def test_an_address_that_leads_inwards_or_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        webhooks.check_webhook(url)


def test_a_name_that_is_not_known_now_may_be_kept_and_is_told_as_that_when_it_is_sent_to() -> None:
    url = "https://hooks.nowhere.invalid/x"
    assert webhooks.check_webhook(url) == url
    assert webhooks.post(url, {}) == "The name of its host is not known here."


def test_a_public_name_that_means_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("93.184.215.14", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert webhooks.post("https://rebound.example.org/x", {}) == "Its address leads into a private network."
    assert asked == ["rebound.example.org"]


def test_no_redirect_is_followed() -> None:
    with listening() as (inner, inward), listening(302, location=inner) as (url, taken):
        assert webhooks.post(url, {}, allowed=HERE) == "It answered with status 302."
    assert (len(taken), inward) == (1, [])


def test_an_answer_that_trickles_in_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST_SECONDS", 0.3)
    monkeypatch.setattr(webhooks, "SECONDS", 0.5)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.1):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        trouble = webhooks.post(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, allowed=HERE)
        done.set()
        thread.join()
    assert trouble.startswith("It did not answer")


def test_mail_goes_to_whoever_asked_and_to_nobody_the_address_smuggles_in() -> None:
    server = "mailtos://user:pass@mail.example.org?from=evals@example.org&to=somebody@example.org"
    assert mail_to(server, "a+b&cc=eve@example.org") == (
        "mailtos://user:pass@mail.example.org?from=evals%40example.org&to=a%2Bb%26cc%3Deve%40example.org"
    )
    assert not Own(1, "mail", "", "a@example.org").name.count("example")


def test_a_mail_server_is_one(tmp_path: Any) -> None:
    path = tmp_path / "notifications.toml"
    path.write_text('mail = "mailtos://u:p@mail.example.org?from=x@example.org"\n')
    assert read_targets(path).mail == SecretStr("mailtos://u:p@mail.example.org?from=x@example.org")
    path.write_text('mail = "jsons://u:hunter2@mail.example.org"\n')
    with pytest.raises(SettingsError, match="write the mail server as mailtos") as refused:
        read_targets(path)
    assert "hunter2" not in str(refused.value)
