import itertools
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.budgets import Budgets
from orchestrator.lifecycle import (
    ARROWS,
    INFRASTRUCTURE,
    TRANSIENT,
    EvaluationState,
    JobFacts,
    JobState,
    evaluation_state,
)
from orchestrator.wire import FailureKind, Stage

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "life-cycle.md").read_text(encoding="utf-8")
FAULTS = (DOCS / "faults.md").read_text(encoding="utf-8")


def table(heading: str, page: str = PAGE) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_page_shows_every_arrow_and_no_other() -> None:
    shown = [(row[0], row[1]) for row in table("A job")]
    assert len(shown) == len(set(shown))
    assert set(shown) == {(source.value, to.value) for source in JobState for to in ARROWS[source]}


def test_the_page_explains_every_state_of_an_evaluation_in_order() -> None:
    assert [row[0] for row in table("An evaluation")] == [state.value for state in EvaluationState]


def test_the_page_gives_the_budgets_of_the_code() -> None:
    engine, infrastructure, *_ = table("Tries")
    assert set(re.split(", ", engine[0])) == {kind.value for kind in TRANSIENT - INFRASTRUCTURE}
    assert int(engine[2]) == Budgets().model_retries + 1
    assert set(re.split(", ", infrastructure[0])) == {kind.value for kind in INFRASTRUCTURE}
    assert int(infrastructure[2]) == Budgets().infrastructure_retries + 1
    assert f"after {Budgets().first_pause_seconds:g} s" in PAGE
    assert f"up to {Budgets().longest_pause_seconds:g} s" in PAGE


def test_the_operators_page_has_every_class_of_failure_and_which_is_tried_again() -> None:
    rows = {row[0]: row[2] for row in table("Classes", FAULTS)}
    assert set(rows) == {kind.value for kind in FailureKind}
    assert {kind for kind, again in rows.items() if again == "yes"} == {kind.value for kind in TRANSIENT}


def test_the_operators_page_explains_every_warning_of_the_hub() -> None:
    warned = re.compile(r"log\.(?:warning|error|critical|exception)\(\s*\"([a-z_]+)")
    sources = [path.read_text(encoding="utf-8") for path in (DOCS.parent / "orchestrator").rglob("*.py")]
    given = {name for source in sources for name in warned.findall(source)}
    given |= {"database_away", "database_busy", "transaction_undone"}  # by `db.log_lost`
    listed = re.findall("`([a-z_]+)`", " ".join(row[0] for row in table("What the hub's log says", FAULTS)))
    assert len(listed) == len(set(listed))
    assert set(listed) == given


def test_every_class_of_failure_is_given_by_some_code() -> None:
    """Apart from the modules that only list them."""
    lists = {"wire.py", "lifecycle.py", "errors.py", "breaker.py"}
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("orchestrator", "workers")
        for path in (DOCS.parent / folder).rglob("*.py")
        if path.name not in lists
    ]
    given_by = {kind: sum(f"FailureKind.{kind.name}" in source for source in sources) for kind in FailureKind}
    assert [kind for kind, count in given_by.items() if not count] == []


def test_every_state_that_is_not_final_can_be_cancelled() -> None:
    assert all(JobState.CANCELLED in ARROWS[state] for state in JobState if not state.is_final)


jobs = st.lists(st.builds(JobFacts, stage=st.sampled_from(Stage), state=st.sampled_from(JobState)), min_size=1)


@given(jobs)
def test_an_evaluation_is_final_exactly_when_all_its_jobs_are(facts: list[JobFacts]) -> None:
    assert evaluation_state(facts).is_final == all(job.state.is_final for job in facts)


@given(jobs, st.randoms(use_true_random=False))
def test_the_state_does_not_depend_on_the_order_of_jobs(facts: list[JobFacts], random: object) -> None:
    expected = evaluation_state(facts)
    random.shuffle(facts)  # type: ignore[attr-defined]  # hypothesis' random
    assert evaluation_state(facts) is expected


def test_finished_needs_one_score_and_failed_has_none() -> None:
    for prepare, infer, score in itertools.product((JobState.COMPLETED, JobState.FAILED), repeat=3):
        facts = [JobFacts(Stage.PREPARE, prepare), JobFacts(Stage.INFER, infer), JobFacts(Stage.SCORE, score)]
        finished = score is JobState.COMPLETED
        assert evaluation_state(facts) is (EvaluationState.FINISHED if finished else EvaluationState.FAILED)
