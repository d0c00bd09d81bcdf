"""What follows when an infer stage has died: it is started again with less, or without what killed it, or not at all.

The engine lives in the stage's process and is gone with it, so whoever runs the stage starts the next one: a worker's
supervisor and `evalyard evaluate`, both by `answer_all`. Deciding (`next_try`) is pure. What is sealed is never asked
again, whatever happens here.

Out of memory: the same work with half as much computed at a time, three times at most.

A crash, an exception, a hang: what the engine held then is suspect. Everything else is answered first, side by side,
and then each suspect context with nothing else in the engine. One after the other, not by halving: an engine start
costs from 15 seconds to minutes, and this way the engine dies once in the crowd and once of the culprit alone, however
many the suspects are; halving n of them kills an engine for each half that holds the culprit, log2(n) of them. What it
costs is that the suspects are not computed side by side. A GPU engine may have held 512 contexts: scored ones take a
step or two each, but a long generation alone takes seconds to minutes, and hundreds of them hours. What kills the
engine alone is set aside.

SIGKILL says little of the requests: it comes from a person or another program as a rule (the kernel's own, for want of
memory, is told apart by `workers.child`). So what was in flight is only put last; it is suspect after dying there once
more, and set aside after two such deaths alone.

An attempt is started again 20 times at most: an engine that dies a minute after each start would take months, though
each start seals something.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL

from orchestrator.wire import EngineFamily, FailureKind, InferWork, SetAside
from workers.child import Outcome
from workers.engine.in_flight import forget_in_flight, left_in_flight

MOST_FOOTPRINT = 3

SHARES = ("as many", "half as many", "a quarter as many", "an eighth as many")
"""Of the requests at a time, by footprint."""

MOST_SET_ASIDE = 3
"""An engine that dies of more contexts than these, each alone, is broken, or the model is."""

MOST_FRUITLESS = 2
"""Restarts in a row after which nothing new was learnt: nothing sealed, and no suspect set aside."""

MOST_RESTARTS = 20
"""Of one attempt, whatever each of them achieved."""

FIRST_AND_LAST = 5
"""Sentences that are kept of restarts: so many of the first, so many of the last."""


@dataclass(frozen=True)
class Ending:
    """How a try ended."""

    outcome: Outcome
    in_flight: frozenset[str] | None
    """Hashes that the engine held; None when it was not up."""


@dataclass(frozen=True)
class Tries:
    """What the tries before have shown, beside what stands in the work itself."""

    restarts: int = 0
    fruitless: int = 0
    killed_alone: frozenset[str] = frozenset()
    """Requests that were in the engine, alone, at a SIGKILL."""


@dataclass(frozen=True)
class NextTry:
    work: InferWork
    tries: Tries
    sentence: str
    """For people: what happened and what is done about it."""


def answer_all(
    work: InferWork,
    out: Path,
    *,
    run: Callable[[InferWork], Outcome],
    tell: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the infer stage in `out`, again while that can help; returns how the last one ended.

    `run` starts a stage and listens to its end; `tell` says why there is another.
    """
    tries = Tries()
    while True:
        forget_in_flight(out)
        began = now()
        outcome = run(work)
        following = next_try(work, Ending(outcome, left_in_flight(out)), tries)
        if following is None:
            forget_in_flight(out)
            return _with_what_was_tried(outcome, work, tries)
        tell(following.sentence)
        spent = (outcome.spent or work.spent).model_copy(
            update={"total_seconds": work.spent.total_seconds + now() - began}
        )
        work, tries = following.work.model_copy(update={"spent": spent}), following.tries


def next_try(work: InferWork, ending: Ending, tries: Tries) -> NextTry | None:
    """What to run after a try that ended so; None when that was the last word."""
    outcome = ending.outcome
    if outcome.failure is None or outcome.lasting or tries.restarts >= MOST_RESTARTS:
        return None
    if outcome.failure is FailureKind.OUT_OF_MEMORY:
        return _smaller(work, tries)
    if outcome.failure is not FailureKind.ENGINE:
        return None
    killed = outcome.exit_code == -SIGKILL
    held = ending.in_flight or frozenset()
    if held and held <= frozenset(work.alone):
        return _after_death_alone(work, held, tries, outcome=outcome, killed=killed)
    fruitless = 0 if outcome.sealed else tries.fruitless + 1
    if fruitless > MOST_FRUITLESS or not (held or killed):
        return None
    tries = replace(tries, fruitless=fruitless)
    if not held:
        return _again(work, tries, f"{outcome.sentence} Starting it again.")
    if killed and not held <= frozenset(work.last):
        last = (*work.last, *sorted(held.difference(work.last, work.alone)))
        sentence = f"{outcome.sentence} Starting it again; the {len(held)} requests it held come last."
        return _again(work, tries, sentence, last=last)
    alone = (*work.alone, *sorted(held.difference(work.alone)))
    last = tuple(request for request in work.last if request not in held)
    sentence = f"{outcome.sentence} Starting it again; the {len(held)} requests it held come last, each alone."
    return _again(work, tries, sentence, alone=alone, last=last)


def _smaller(work: InferWork, tries: Tries) -> NextTry | None:
    # The reference engine computes one request at a time as it is.
    if work.footprint >= MOST_FOOTPRINT or work.engine is EngineFamily.TRANSFORMERS:
        return None
    footprint = work.footprint + 1
    sentence = f"Out of memory; trying again with {SHARES[footprint]} requests at a time."
    return _again(work, tries, sentence, footprint=footprint)


def _after_death_alone(
    work: InferWork, held: frozenset[str], tries: Tries, *, outcome: Outcome, killed: bool
) -> NextTry | None:
    requests = tuple(sorted(held))
    if killed and not held <= tries.killed_alone:
        tries = replace(tries, killed_alone=tries.killed_alone | held)
        return _again(work, tries, f"{outcome.sentence} It held {_named(requests)} alone; trying that once more.")
    if len(work.set_aside) >= MOST_SET_ASIDE:
        return None
    aside = SetAside(requests=requests, cause=outcome.sentence)
    sentence = f"{outcome.sentence} It held {_named(requests)} alone; going on without."
    return _again(
        work,
        replace(tries, fruitless=0),
        sentence,
        alone=tuple(request for request in work.alone if request not in held),
        set_aside=(*work.set_aside, aside),
    )


def _again(work: InferWork, tries: Tries, sentence: str, **changes: object) -> NextTry:
    changed = work.model_copy(update={**changes, "restarts": kept_restarts((*work.restarts, sentence))})
    return NextTry(changed, replace(tries, restarts=tries.restarts + 1), sentence)


def kept_restarts(said: tuple[str, ...]) -> tuple[str, ...]:
    """The sentences that are kept of all that were said of restarts, in their order."""
    return said if len(said) <= 2 * FIRST_AND_LAST else said[:FIRST_AND_LAST] + said[-FIRST_AND_LAST:]


def _named(requests: tuple[str, ...]) -> str:
    more = f" and {len(requests) - 1} more of its context" if len(requests) > 1 else ""
    return f"request {requests[0]}{more}"


def _with_what_was_tried(outcome: Outcome, work: InferWork, tries: Tries) -> Outcome:
    """A failure's sentence says what was tried before; other endings stay as they are."""
    if outcome.failure is None or not work.restarts:
        return outcome
    if outcome.failure is FailureKind.OUT_OF_MEMORY and work.footprint:
        tried = f"Tried with {SHARES[work.footprint]} requests at a time, too."
    else:
        count = max(tries.restarts, len(work.restarts))
        times = "once" if count == 1 else f"{count} times"
        tried = f"It was started again {times}."
    if len(work.set_aside) >= MOST_SET_ASIDE and outcome.failure is FailureKind.ENGINE:
        tried += f" {len(work.set_aside)} contexts had killed it before, each alone: it is not a matter of one request."
    return replace(outcome, sentence=f"{outcome.sentence} {tried}")
