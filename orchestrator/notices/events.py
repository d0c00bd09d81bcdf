"""What can be told, and in which words. Pure.

Texts hold names and sentences of strangers: they are made harmless for services that read more than text in them.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from orchestrator.words import count

EVALUATION_FINISHED = "evaluation_finished"
EVALUATION_FAILED = "evaluation_failed"
RERUN_EVALUATION_FINISHED = "rerun_evaluation_finished"
RERUN_EVALUATION_FAILED = "rerun_evaluation_failed"
RERUN_NOTICED = "rerun_noticed"
RERUN_READY = "rerun_ready"
RERUN_STARTED = "rerun_started"
RERUN_FINISHED = "rerun_finished"
RERUN_ASKS = "rerun_asks"
CANARY_KEEPS_OUT = "canary_keeps_out"

EVENTS = {
    EVALUATION_FINISHED: "an evaluation has its scores",
    EVALUATION_FAILED: "an evaluation failed",
    RERUN_EVALUATION_FINISHED: "an evaluation that belongs to a re-run has its scores",
    RERUN_EVALUATION_FAILED: "an evaluation that belongs to a re-run failed",
    RERUN_NOTICED: "something changed that scores depend on, and a plan is being made",
    RERUN_READY: "a re-run is planned",
    RERUN_STARTED: "a re-run was started by the policy",
    RERUN_FINISHED: "a re-run has ended",
    RERUN_ASKS: "something changed that an operator must decide about",
    CANARY_KEEPS_OUT: "the canary keeps workers with a new engine or driver out",
}

UNASKED = (RERUN_EVALUATION_FINISHED, RERUN_EVALUATION_FAILED)
"""Told only to a target that names them: a re-run has thousands."""

LINE = 300
"""Characters of a sentence that are told."""


class Facts(NamedTuple):
    """What a text is made of; what is not known is empty."""

    event: str
    evaluation: int | None = None
    model: str = ""
    suite: str = ""
    version: str = ""
    average: float | None = None
    limit: int | None = None
    """Of a trial: documents per lm-eval task."""
    sentence: str = ""
    rerun: int | None = None
    more: Mapping[str, Any] = {}


class Asker(NamedTuple):
    """Who asked for an evaluation; nobody for what is a re-run's own."""

    names: frozenset[str] = frozenset()
    """What the notifications file may call them: names that nobody else can take."""
    person: int | None = None


class Message(NamedTuple):
    subject: str
    body: str
    records: tuple[dict[str, Any], ...] = ()
    """The same for programs, a record for each notice."""


def wants(events: Sequence[str], event: str) -> bool:
    """Whether a target with these patterns is told of an event; without patterns, of all but `UNASKED`."""
    if not events:
        return event not in UNASKED
    return any(fnmatchcase(event, pattern) for pattern in events)


def write(facts: Facts, *, site: str = "") -> Message:
    """One notice in words; `site` is where links lead, none where it is not known."""
    subject, sentence, path = _words(facts)
    link = f"{site.rstrip('/')}{path}" if site and path else ""
    record = {
        "event": facts.event,
        "evaluation": facts.evaluation,
        "model": facts.model,
        "suite": facts.suite,
        "suite_version": facts.version,
        "average": facts.average,
        "limit": facts.limit,
        "sentence": facts.sentence,
        "link": link or None,
    }
    return Message(harmless(subject), "\n".join(filter(None, (harmless(sentence), link))), (record,))


def together(messages: Iterable[Message]) -> Message:
    """Several notices to one target as one message."""
    found = list(messages)
    if len(found) == 1:
        return found[0]
    body = "\n\n".join(f"{message.subject}\n{message.body}".rstrip() for message in found)
    records = tuple(record for message in found for record in message.records)
    return Message(f"{len(found)} notices from Evalyard", body, records)


def harmless(text: str) -> str:
    """On one line, printable, not too long, and calling nobody: services read `@all` and `<!channel>` in any text."""
    plain = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    cut = plain if len(plain) <= LINE else plain[: LINE - 1] + "…"
    return cut.replace("@", "@\u200b").replace("<", "<\u200b")


def _words(facts: Facts) -> tuple[str, str, str]:
    """Subject, sentence and path of a notice."""
    if facts.evaluation is not None:
        what = f"{facts.model} on {facts.suite} {facts.version}".strip()
        path = f"/evaluations/{facts.evaluation}"
        named, trial = f"Evaluation {facts.evaluation}", ""
        if facts.limit is not None:
            named = f"Trial evaluation {facts.evaluation}"
            trial = f"A trial of {count(facts.limit, 'document')} per task: never ranked."
        if facts.event in (EVALUATION_FAILED, RERUN_EVALUATION_FAILED):
            return f"{named} failed: {what}", f"{trial} {facts.sentence}".strip(), path
        average = f"Average {facts.average:.2f}." if facts.average is not None else ""
        return f"{named} finished: {what}", " ".join(filter(None, (average, trial, facts.sentence))), path
    if facts.event == CANARY_KEEPS_OUT:
        return "The canary keeps workers out", facts.sentence, "/canary"
    path = f"/reruns/{facts.rerun}" if facts.rerun is not None else "/reruns"
    named = f"Re-run {facts.rerun} of {facts.suite} to version {facts.version}"
    if facts.event == RERUN_READY:
        return f"{named} is planned", facts.sentence, path
    if facts.event == RERUN_STARTED:
        return f"{named} was started", facts.sentence, path
    if facts.event == RERUN_FINISHED:
        return f"{named} has ended", facts.sentence, f"{path}/report"
    subject = "Evalyard asks an operator" if facts.event == RERUN_ASKS else "Something changed that scores depend on"
    return subject, facts.sentence, path
