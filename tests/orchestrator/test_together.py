"""Updates that come at the same time share a transaction, and each has its own end."""

import threading
from collections.abc import Sequence

import pytest

from orchestrator import broker, db, tasks, updates
from orchestrator.together import Together
from orchestrator.wire import FailureKind, Order, Update
from tests.orchestrator.yard import LEASE, Yard, done_of


def test_what_is_asked_while_one_works_is_done_in_one_go() -> None:
    begun, go_on = threading.Event(), threading.Event()
    parts: list[list[int]] = []

    def do(asked: Sequence[int]) -> list[int]:
        parts.append(list(asked))
        begun.set()
        go_on.wait(10)
        return [-one for one in asked]

    together = Together(do, most=3)
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        answers[number] = together.ask(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    threads[0].start()
    begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while together.waiting < 5:
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert answers == {number: -number for number in range(6)}
    assert [len(part) for part in parts] == [1, 3, 2]


def test_an_exception_is_everybodys_whose_part_it_was_and_nobody_elses() -> None:
    def do(asked: Sequence[int]) -> list[int]:
        if 7 in asked:
            raise ValueError("seven")
        return list(asked)

    together = Together(do, most=3)
    with pytest.raises(ValueError, match="seven"):
        together.ask(7)
    assert together.ask(1) == 1


@pytest.fixture
def hub(yard: Yard) -> tasks.Hub:
    return tasks.Hub(app=broker.make_app("memory://", name="test"), engine=yard.engine, suites=yard.suites, lease=LEASE)


def report(order: Order, event: str = "completed", **fields: object) -> Update:
    done = done_of(order) if event == "completed" else None
    return Update.model_validate(
        {"attempt": order.attempt, "worker": "w", "at": "2026-01-01T00:00:00Z", "event": event, "done": done, **fields}
    )


def prepares(yard: Yard, evaluations: int) -> list[Order]:
    for _ in range(evaluations):
        yard.submit()
    yard.beat("harness-1", slots=4 * evaluations)
    return yard.tick()


def test_updates_of_several_evaluations_in_one_transaction_end_as_they_would_one_by_one(yard: Yard) -> None:
    orders = prepares(yard, 3)
    started = [report(order, "started") for order in orders]
    ended = [report(order) for order in orders]
    doubled = [*started, *ended, *ended[:2]]
    with db.session(yard.engine) as session:
        verdicts = updates.apply_updates(session, doubled, suites=yard.suites, now=yard.now)
    assert [one.accepted for one in verdicts] == [True] * 12 + [False] * 2
    for evaluation in (1, 2, 3):
        states = yard.states(evaluation)
        assert (states["prepare ARC"], states["prepare MMLU"], states["infer"]) == ("completed", "completed", "queued")
        names = [event.name for event in yard.events(evaluation)]
        assert names.count("job_completed") == 2
        assert names[-1] == "evaluation_moved"
        assert yard.evaluation(evaluation).state.value == "running"


def test_a_failure_among_them_ends_its_own_attempt_alone(hub: tasks.Hub, yard: Yard) -> None:
    orders = prepares(yard, 2)
    reports = [report(order) for order in orders[:3]]
    reports.insert(1, report(orders[3], "failed", failure=FailureKind.CONFIG, sentence="No config."))
    verdicts = hub.apply(reports)
    assert [one.accepted for one in verdicts] == [True] * 4
    states = {**yard.states(1), **{f"2 {name}": state for name, state in yard.states(2).items()}}
    assert sorted(state for name, state in states.items() if "prepare" in name) == ["completed"] * 3 + ["failed"]


def test_a_result_that_is_none_among_them_fails_its_own_job_alone(hub: tasks.Hub, yard: Yard) -> None:
    orders = prepares(yard, 2)
    reports = [report(order) for order in orders]
    reports[0] = reports[0].model_copy(update={"done": None})
    assert all(one.accepted for one in hub.apply(reports))
    states = [state for one in (1, 2) for name, state in yard.states(one).items() if name.startswith("prepare")]
    assert sorted(states) == ["completed", "completed", "completed", "failed"]
