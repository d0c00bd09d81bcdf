"""Compares two sheets of one benchmark, made by an old and a new harness, and says what must be done again. Pure.

    same           nothing that moves a score changed: the old scores carry over
    score          every answer is there, and may be judged otherwise: scored again, without a GPU
    infer          some requests are new
    incomparable   it is not the same benchmark any more: a task was removed or renamed
    unknown        no sheet of it could be made so far, for want of something else than the task

Where it cannot be told that two things are equal, they count as changed: a verdict errs only towards more work.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.reruns.facts import Scoring, SheetFacts, TaskFacts

SHOWN = 5
"""Tasks that a sentence names; of the rest it says how many."""


class VerdictKind(StrEnum):
    SAME = "same"
    SCORE = "score"
    INFER = "infer"
    INCOMPARABLE = "incomparable"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """What the new sheet needs that the old one's answers and scores do not give."""

    kind: VerdictKind
    requests: int
    """Distinct requests of the new sheet."""
    new_requests: int
    """Those of them that the old sheet did not ask."""
    new_tokens: int
    """Tokens of the new ones, what they may generate included."""
    sentences: tuple[str, ...]
    """What differs, for people; for `same` that nothing does."""


def compare(old: SheetFacts, new: SheetFacts) -> Verdict:
    """What changed between two sheets of one benchmark and one model."""
    asked = _all_requests(new)
    # Most sheets ask what the old one asked, which is seen without looking at each request.
    known = {} if _moved(old, new) else asked if _ask_the_same(old, new) else _all_requests(old)
    unanswered = {address: asked[address] for address in asked.keys() - known.keys()} if known is not asked else {}

    def verdict(kind: VerdictKind, sentences: Iterable[str]) -> Verdict:
        return Verdict(kind, len(asked), len(unanswered), sum(unanswered.values()), tuple(sentences))

    if gone := sorted(old.tasks.keys() - new.tasks.keys()):
        return verdict(VerdictKind.INCOMPARABLE, [f"{_tasks(gone)} no longer in {new.harness}: removed or renamed."])
    if added := sorted(new.tasks.keys() - old.tasks.keys()):
        return verdict(VerdictKind.INCOMPARABLE, [f"{_tasks(added)} not in the benchmark of {old.harness}."])
    if unanswered:
        return verdict(VerdictKind.INFER, _new_requests(old, new, known))
    changes = {name: _changes(old.tasks[name], new.tasks[name]) for name in sorted(new.tasks)}
    sentences = _by_change({name: found for name, found in changes.items() if found})
    if old.groups != new.groups:
        sentences.append("The numbers of groups are put together otherwise.")
    if not old.judged_by:
        sentences.append("It was not recorded which packages judged the old scores.")
    if sentences:
        return verdict(VerdictKind.SCORE, [f"All {len(asked)} requests are answered.", *sentences])
    return verdict(VerdictKind.SAME, [_nothing(old, new, len(asked))])


def removed(sentence: str) -> Verdict:
    """The verdict where the new harness could make no sheet; `sentence` is its own: it has no such task."""
    return Verdict(VerdictKind.INCOMPARABLE, 0, 0, 0, (sentence,))


def unmade(sentence: str) -> Verdict:
    """The verdict where nothing could be compared; `sentence` says what went wrong. It is asked for again."""
    return Verdict(VerdictKind.UNKNOWN, 0, 0, 0, (sentence,))


def _moved(old: SheetFacts, new: SheetFacts) -> bool:
    """Whether the old responses lie under another identity, so that none is found."""
    return dict(old.identity) != dict(new.identity)


def _ask_the_same(old: SheetFacts, new: SheetFacts) -> bool:
    return old.tasks.keys() == new.tasks.keys() and all(
        old.tasks[name].requests == task.requests for name, task in new.tasks.items()
    )


def _all_requests(facts: SheetFacts) -> Mapping[bytes, int]:
    if len(facts.tasks) == 1:
        return next(iter(facts.tasks.values())).requests
    every: dict[bytes, int] = {}
    for task in facts.tasks.values():
        every.update(task.requests.items())
    return every


def _new_requests(old: SheetFacts, new: SheetFacts, known: Mapping[bytes, int]) -> list[str]:
    if _moved(old, new):
        keys = sorted(key for key in {*old.identity, *new.identity} if old.identity.get(key) != new.identity.get(key))
        return [f"The model is addressed otherwise ({', '.join(keys)}): none of its responses can be used."]
    counts = {name: len(task.requests.keys() - known.keys()) for name, task in sorted(new.tasks.items())}
    changed = {name: count for name, count in counts.items() if count}
    shown = [f"{name}: {count} of {len(new.tasks[name].requests)} requests are new" for name, count in changed.items()]
    rest = [f"{len(shown) - SHOWN} more tasks have new requests"] if len(shown) > SHOWN else []
    return [f"{sentence}." for sentence in (*shown[:SHOWN], *rest)]


def _changes(old: TaskFacts, new: TaskFacts) -> tuple[str, ...]:
    """What changed in a task whose every request is answered."""
    found = []
    if (old.documents, old.content) != (new.documents, new.content):
        found.append("documents")
    if old.targets != new.targets:
        found.append("right answers")
    asked_otherwise = old.requests != new.requests and old.requests.keys() != new.requests.keys()
    if old.instances != new.instances or asked_otherwise:
        found.append("which answers judge which document")
    return (*found, *_scoring_changes(old.scoring, new.scoring))


def _scoring_changes(old: Scoring, new: Scoring) -> tuple[str, ...]:
    found = []
    if old.code != new.code:
        found.append("filters, metrics or the functions that they name")
    for package in sorted({*old.packages, *new.packages}):
        before, after = old.packages.get(package, "none"), new.packages.get(package, "none")
        if before != after:
            found.append(f"{package} ({before} to {after})")
    if old.draws_from != new.draws_from:
        found.append("where the random numbers begin that it draws")
    if old.probe != new.probe:
        found.append("what becomes of made-up answers")
    elif old.core != new.core and new.probe is None:
        found.append("lm-eval's own scoring code")
    return tuple(found)


def _by_change(changes: Mapping[str, tuple[str, ...]]) -> list[str]:
    """One sentence for each kind of change, with the tasks that have it."""
    tasks: dict[tuple[str, ...], list[str]] = {}
    for name, found in changes.items():
        tasks.setdefault(found, []).append(name)
    return [f"{_names(names)} changed in: {'; '.join(found)}." for found, names in tasks.items()]


def _nothing(old: SheetFacts, new: SheetFacts, requests: int) -> str:
    sentence = f"All {requests} requests, documents, right answers and scorers are equal"
    versions = sorted(name for name in new.tasks if old.tasks[name].version != new.tasks[name].version)
    if versions:
        before, after = old.tasks[versions[0]].version, new.tasks[versions[0]].version
        sentence += f", though {_names(versions)} went from version {before} to {after}"
    if any(old.tasks[name].scoring.core != new.tasks[name].scoring.core for name in new.tasks):
        sentence += "; lm-eval's own code is written otherwise and made the same of made-up answers"
    return f"{sentence}."


def _tasks(names: list[str]) -> str:
    return f"{_names(names)} {'is' if len(names) == 1 else 'are'}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more tasks" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
