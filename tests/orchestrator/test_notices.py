"""Notices: noted with what they tell, spread over targets, sent at least once, never by two senders at a time."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from orchestrator import db
from orchestrator.errors import SettingsError
from orchestrator.lifecycle import EvaluationState
from orchestrator.notices import events, outbox
from orchestrator.notices.events import Facts, Message, together, write
from orchestrator.notices.notifier import Notifier
from orchestrator.notices.services import SEND_SECONDS, make_service, send_by_apprise
from orchestrator.notices.targets import Target, Targets, read_targets
from orchestrator.people import Visibility
from orchestrator.tables import Delivery, Evaluation, Notice, Submission
from orchestrator.wire import FailureKind
from tests.orchestrator.yard import Yard

SECRET = "hunter2"


def target(name: str = "ops", **fields: Any) -> Target:
    return Target(name=name, **({"url": f"jsons://bot:{SECRET}@hooks.example.org/x"} | fields))


class Post:
    """A service that takes messages, or not."""

    def __init__(self, *, trouble: str = "") -> None:
        self.taken: list[tuple[str, Message]] = []
        self.trouble = trouble

    def send(self, to: Target, message: Message) -> str:
        if not self.trouble:
            self.taken.append((to.name, message))
        return self.trouble


def notifier(yard: Yard, post: Post, *targets: Target, site: str = "") -> Notifier:
    return Notifier(yard.engine, Targets(targets or (target(),), site), post.send)


def finish(yard: Yard, **fields: Any) -> int:
    evaluation = yard.submit(**fields)
    yard.workers()
    yard.finish()
    return evaluation


def deliveries(yard: Yard) -> list[Delivery]:
    with db.session(yard.engine, read_only=True) as session:
        return list(session.exec(select(Delivery).order_by(col(Delivery.notice_id), col(Delivery.target))).all())


def test_the_end_of_an_evaluation_is_told_once(yard: Yard) -> None:
    evaluation = finish(yard)
    post = Post()
    told = notifier(yard, post, site="https://evals.example.org/")
    assert [told.round(yard.now), told.round(yard.now)] == [1, 0]
    ((name, message),) = post.taken
    assert name == "ops"
    assert message.subject == f"Evaluation {evaluation} finished: org/m on small 1"
    assert message.body.splitlines() == ["Average 33.33.", f"https://evals.example.org/evaluations/{evaluation}"]
    assert [row.state for row in deliveries(yard)] == ["sent"]


def test_a_failure_is_told_with_its_sentence_and_a_cancelled_evaluation_is_not(yard: Yard) -> None:
    yard.submit()
    order = yard.infer_order()
    yard.fail(order, FailureKind.CONFIG, "vLLM does not know FooForCausalLM.")
    cancelled = yard.submit()
    yard.cancel(cancelled)
    post = Post()
    notifier(yard, post).round(yard.now)
    ((_, message),) = post.taken
    assert message.subject.startswith("Evaluation 1 failed")
    assert "FooForCausalLM" in message.body


@pytest.mark.parametrize(("limit", "documents"), [(1, "1 document"), (20, "20 documents")])
def test_a_trial_is_told_as_one(yard: Yard, limit: int, documents: str) -> None:
    evaluation = finish(yard)
    with db.session(yard.engine) as session:
        row = session.get_one(Evaluation, evaluation)
        row.document_limit = limit
        outbox.note_end(session, row, EvaluationState.FAILED, now=yard.now)
    post = Post()
    notifier(yard, post).round(yard.now)
    ((_, message),) = post.taken
    for said in ("Trial evaluation 1 finished: org/m on small 1", "Trial evaluation 1 failed: org/m on small 1"):
        assert said in message.body
    assert f"Average 33.33. A trial of {documents} per task: never ranked." in message.body
    assert [record["limit"] for record in message.records] == [limit, limit]


def test_of_what_not_everybody_may_see_no_channel_is_told_name_or_score(yard: Yard) -> None:
    evaluation = finish(yard)
    with db.session(yard.engine) as session:
        submission = session.exec(select(Submission)).one()
        submission.visibility = Visibility.TEAM
        session.add(submission)
    post = Post()
    notifier(yard, post, site="https://evals.example.org").round(yard.now)
    ((_, message),) = post.taken
    assert message.subject == f"Evaluation {evaluation} finished: a model that not everybody may see on small 1"
    assert message.body == f"https://evals.example.org/evaluations/{evaluation}"


def test_an_evaluation_that_is_retried_and_ends_again_is_told_again(yard: Yard) -> None:
    yard.submit()
    yard.fail(yard.infer_order(), FailureKind.CONFIG)
    yard.wait(1)
    yard.retry(1)
    yard.workers()
    yard.finish()
    post = Post()
    notifier(yard, post).round(yard.now)
    ((_, message),) = post.taken
    assert message.subject == "2 notices from Evalyard"
    assert "failed" in message.body
    assert "finished" in message.body


def test_what_is_undone_is_not_told(yard: Yard) -> None:
    def undone() -> None:
        with db.session(yard.engine) as session:
            outbox.note(session, events.RERUN_ASKS, key="k", now=yard.now, sentence="x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    with db.session(yard.engine, read_only=True) as session:
        assert session.exec(select(Notice)).all() == []


def test_the_same_thing_noted_twice_is_one_notice(yard: Yard) -> None:
    with db.session(yard.engine) as session:
        assert outbox.note(session, events.RERUN_ASKS, key="k", now=yard.now, sentence="x")
        assert not outbox.note(session, events.RERUN_ASKS, key="k", now=yard.now, sentence="y")
    with db.session(yard.engine) as session:
        assert not outbox.note(session, events.RERUN_ASKS, key="k", now=yard.now, sentence="z")


def test_a_service_that_is_away_is_tried_again_later_each_time_and_given_up_at_last(yard: Yard) -> None:
    finish(yard)
    post = Post(trouble="The service refused it or did not answer.")
    told = notifier(yard, post)
    pauses = []
    for _ in range(outbox.MOST_TRIES):
        told.round(yard.now)
        (row,) = deliveries(yard)
        told.round(yard.now)
        assert deliveries(yard)[0].tries == row.tries  # not before it is due
        pauses.append((row.due_at - yard.now).total_seconds())
        yard.now = row.due_at
    assert pauses[:4] == [30, 60, 120, 240]
    assert max(pauses) == 3600
    assert (row.state, row.sentence) == ("given_up", "The service refused it or did not answer.")
    assert told.round(yard.now + timedelta(days=1)) == 0


def test_of_two_senders_one_sends(yard: Yard) -> None:
    finish(yard)
    targets = (target(),)
    with db.session(yard.engine) as session:
        outbox.spread(session, targets, now=yard.now)
    with db.session(yard.engine) as session:
        _, first = outbox.hold(session, targets, now=yard.now)
    with db.session(yard.engine) as session:
        _, second = outbox.hold(session, targets, now=yard.now)
    assert (len(first), len(second)) == (1, 0)


def test_what_a_killed_sender_held_is_sent_by_another_after_a_while(yard: Yard) -> None:
    finish(yard)
    targets = (target(),)
    with db.session(yard.engine) as session:
        outbox.spread(session, targets, now=yard.now)
        mark, (held,) = outbox.hold(session, targets, now=yard.now)
    post = Post()
    told = notifier(yard, post)
    assert told.round(yard.now) == 0
    yard.wait(outbox.HOLD.total_seconds() + 1)
    assert told.round(yard.now) == 1
    with db.session(yard.engine) as session:  # the first one wakes up: what it says changes nothing
        outbox.settle(session, mark, held, trouble="late", now=yard.now)
    assert [(row.state, row.sentence) for row in deliveries(yard)] == [("sent", "")]


def test_services_that_hang_keep_no_sender_at_it_for_longer_than_it_holds_what_it_sends(yard: Yard) -> None:
    finish(yard)
    targets = [target(f"ops-{number}") for number in range(5)]
    clock = 0.0

    def hangs(to: Target, message: Message) -> str:
        nonlocal clock
        clock += SEND_SECONDS
        return ""

    sender = Notifier(yard.engine, Targets(tuple(targets), ""), hangs, clock=lambda: clock)
    assert sender.round(yard.now) == 3
    assert clock <= outbox.HOLD.total_seconds()
    yard.wait(outbox.HOLD.total_seconds() + 1)
    assert sender.round(yard.now) == 2
    assert {row.state for row in deliveries(yard)} == {"sent"}


def test_a_clock_that_is_set_back_holds_nothing_up_for_longer_than_a_pause(yard: Yard) -> None:
    finish(yard)
    targets = (target(),)
    with db.session(yard.engine) as session:
        outbox.spread(session, targets, now=yard.now)
        outbox.hold(session, targets, now=yard.now + timedelta(days=30))
    post = Post()
    assert notifier(yard, post).round(yard.now) == 1


def test_a_hub_that_gets_its_first_target_does_not_tell_its_history(yard: Yard) -> None:
    finish(yard)
    nobody = Notifier(yard.engine, Targets(), Post().send)
    assert nobody.round(yard.now) == 0
    finish(yard)  # meanwhile control did not run, and long ago
    post = Post()
    assert notifier(yard, post).round(yard.now + outbox.STALE + timedelta(minutes=1)) == 0
    assert deliveries(yard) == []


def test_a_target_that_left_the_file_is_given_up(yard: Yard) -> None:
    finish(yard)
    away = Post(trouble="away")
    notifier(yard, away, target("old")).round(yard.now)
    yard.wait(outbox.LONGEST_PAUSE.total_seconds() * 3)
    notifier(yard, Post(), target("new")).round(yard.now)
    ((state, sentence),) = [(row.state, row.sentence) for row in deliveries(yard)]
    assert (state, sentence) == ("given_up", "There is no target of that name any more.")


def test_a_submitters_target_is_told_of_their_evaluations_alone(yard: Yard) -> None:
    post = Post()
    told = notifier(yard, post, target("hers", submitters=("alice",)), target("ops", events=("*_failed",)))
    finish(yard, submitter="alice")
    finish(yard, submitter="bob")
    with db.session(yard.engine) as session:
        outbox.note(session, events.RERUN_ASKS, key="k", now=yard.now, sentence="x")
    told.round(yard.now)
    ((name, message),) = post.taken
    assert name == "hers"
    assert message.subject.startswith("Evaluation 1 ")


def test_single_evaluations_of_a_rerun_are_told_only_to_those_who_name_them(yard: Yard) -> None:
    evaluation = yard.evaluation(finish(yard))
    evaluation.rerun_id = 3
    with db.session(yard.engine) as session:
        outbox.note_end(session, evaluation, EvaluationState.FINISHED, now=yard.now + timedelta(seconds=1))
    post = Post()
    notifier(yard, post, target("ops"), target("hers", events=("rerun_evaluation_*",))).round(yard.now)
    assert sorted(name for name, _ in post.taken) == ["hers", "ops"]
    assert len(deliveries(yard)) == 2  # the first end to ops, the re-run's to hers


def test_texts_of_strangers_call_nobody_and_stay_on_their_line() -> None:
    facts = Facts(
        events.EVALUATION_FAILED, 4, "a/@everyone\r\nBcc: x", "v2", "1", sentence="<!channel> \x1b[31m" + "x" * 900
    )
    message = write(facts)
    assert "@everyone" not in message.subject
    assert "\n" not in message.subject
    assert "\x1b" not in message.body
    assert "<!channel>" not in message.body
    assert len(message.body.replace("\u200b", "")) <= events.LINE


def test_one_notice_is_itself_and_several_are_one_message() -> None:
    one = Message("a", "b")
    assert together([one]) == one
    assert together([one, one]).subject == "2 notices from Evalyard"


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that keeps what it is posted."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"json://bot:{SECRET}@127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()


def test_apprise_posts_to_a_real_webhook() -> None:
    with webhook() as (url, got):
        assert send_by_apprise(target(url=url), Message("Evaluation 1 finished", "<b>Average</b> 3")) == ""
    assert [(one["title"], one["message"]) for one in got] == [("Evaluation 1 finished", "<b>Average</b> 3")]


def test_a_webhook_that_refuses_is_trouble_and_nothing_shows_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with webhook(500) as (url, _):
        trouble = send_by_apprise(target(url=url), Message("a", "b"))
    gone = send_by_apprise(target(url=url), Message("a", "b"))
    assert trouble == gone == "The service refused it or did not answer."
    shown = "".join((trouble, gone, repr(target(url=url)), caplog.text))
    assert SECRET not in shown


FILE = """
site = "https://evals.example.org"
[[target]]
name = "ops"
url = "mailtos://evals:hunter2@mail.example.org?to=ops@example.org"
events = ["evaluation_failed", "rerun_*"]
[[target]]
name = "alice"
url_file = "{secret}"
submitters = ["alice"]
"""


def test_the_notifications_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "alice.url"
    secret.write_text("json://127.0.0.1/x\n")
    file = tmp_path / "notifications.toml"
    file.write_text(FILE.format(secret=secret))
    found = read_targets(file)
    assert found.site == "https://evals.example.org"
    assert [one.name for one in found.targets] == ["ops", "alice"]
    assert found.targets[1].address() == "json://127.0.0.1/x"
    assert found.targets[0].wants(events.RERUN_ASKS, asker=events.Asker())
    assert not found.targets[0].wants(events.EVALUATION_FINISHED, asker=events.Asker(frozenset({"bob"})))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("events =", "evnts ="), "Did you mean events?"),
        (lambda text: text.replace("rerun_*", "rerum_ready"), "did you mean rerun_ready?"),
        (lambda text: text.replace('name = "alice"', 'name = "ops"'), "two targets are named ops"),
        (lambda text: text.replace('name = "ops"', 'name = "Ops!"'), "write a name of small letters"),
        (lambda text: text.replace('url_file = "{secret}"', ""), "give either url or url_file"),
        (lambda text: text.replace("https://evals", "evals"), "https://…"),
        (lambda text: text.replace('org"\nevents', "org\nevents"), "is no TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named_without_showing_an_address(
    tmp_path: Path, change: Callable[[str], str], sentence: str
) -> None:
    file = tmp_path / "notifications.toml"
    file.write_text(change(FILE))
    with pytest.raises(SettingsError) as raised:
        read_targets(file)
    assert sentence in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_service_that_there_is_not_is_named_without_its_address() -> None:
    with pytest.raises(SettingsError, match="target 'ops'") as raised:
        make_service(target(url=f"nonsense-{SECRET}"))
    assert SECRET not in str(raised.value)


def test_every_event_is_described_and_named_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text(encoding="utf-8")
    assert [name for name in events.EVENTS if f"`{name}`" not in text] == []


def test_an_evaluation_row_is_all_that_an_end_needs(yard: Yard) -> None:
    with db.session(yard.engine) as session:
        outbox.note_end(
            session,
            Evaluation(id=None, submission_id=1, suite="s", suite_version="1", engine="vllm", key="k"),  # type: ignore[arg-type]
            EvaluationState.RUNNING,
            now=yard.now,
        )
        assert session.exec(select(Notice)).all() == []
