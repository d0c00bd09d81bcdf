"""A plan from its comparisons to its last evaluation."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update
from sqlmodel import col, select

from orchestrator import db, jobs
from orchestrator.errors import NotFound, Refused, WrongState
from orchestrator.keys import key_of
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.reruns import plans
from orchestrator.reruns.coverage import read_progress
from orchestrator.reruns.planning import suite_at
from orchestrator.reruns.report import read_report
from orchestrator.scheduling.turns import BOOST
from orchestrator.tables import Attempt, Evaluation, Job, Person, Rerun, RerunBenchmark, Score, Submission, Vote
from orchestrator.wire import EngineFamily, Stage
from tests.orchestrator.reruns.works import NEW, OLD, Sheet, Works
from tests.orchestrator.yard import Yard, make_suite


def test_one_model_of_each_class_is_prepared_for_each_benchmark(works: Works) -> None:
    works.finished(3)
    works.submit(9, of_class="other")
    works.work()
    before = len(works.orders)
    plan = works.planned()
    made = [order.work for order in works.orders[before:]]
    assert [work.stage for work in made] == [Stage.PREPARE] * 4
    assert works.read(plan).state is RerunState.READY
    assert works.verdicts(plan) == {
        (f"{of}-{benchmark}", benchmark): "same" for of in ("plain", "other") for benchmark in ("ARC", "MMLU")
    }


def test_unchanged_scores_carry_over_with_no_work_and_say_where_they_are_from(works: Works) -> None:
    (old,) = works.finished(1)
    plan = works.planned()
    ordered = len(works.orders)
    works.start(plan)
    works.go_on()
    assert len(works.orders) == ordered
    again = works.again(old)
    assert (again.state, again.average, again.suite_version) == (
        EvaluationState.FINISHED,
        works.yard.evaluation(old).average,
        NEW,
    )
    assert works.read(plan).state is RerunState.FINISHED

    def numbers(evaluation: int) -> list[tuple[object, ...]]:
        return [
            (row.benchmark, row.task, row.metric, row.filter, row.value, row.stderr, row.samples, row.attempt_id)
            for row in works.yard.scores(evaluation)
        ]

    assert numbers(again.id or 0) == numbers(old)
    (own,) = [row for row in works.yard.scores(again.id or 0) if (row.benchmark, row.metric) == ("ARC", "value")]
    carried = own.provenance["carried"]
    assert (carried["evaluation"], carried["suite_version"], carried["rerun"]) == (old, OLD, plan)
    assert "equal" in carried["because"]


def test_a_changed_scorer_is_scored_from_stored_responses_without_inference(works: Works) -> None:
    old, other = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    works.accuracy[NEW, "ARC"] = 0.75
    plan = works.done()
    assert works.verdicts(plan) == {("plain-ARC", "ARC"): "score", ("plain-MMLU", "MMLU"): "same"}
    for one in (old, other):
        again = works.again(one)
        assert again.state is EvaluationState.FINISHED
        assert Stage.INFER not in works.stages(again.id or 0)
        assert again.average != works.yard.evaluation(one).average
    # The second model's sheet is the first one's, and its responses are its own.
    score = next(order for order in works.orders if order.evaluation == works.again(other).id)
    assert score.work.stage is Stage.SCORE
    assert score.work.sheet.startswith(f"sheets/{works.again(old).id}/")
    assert score.work.identity == works.yard.job(other, Stage.INFER).identity


def test_new_requests_are_inferred_for_the_changed_benchmark_alone(works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "MMLU"] = Sheet(first=3)
    plan = works.planned()
    assert works.verdicts(plan)["plain-MMLU", "MMLU"] == "infer"
    assert works.read(plan).estimate["new_requests"] == 3
    assert works.again(old).state is EvaluationState.PLANNED
    works.start(plan)
    works.go_on()
    again = works.again(old)
    assert [set(asked) for asked in works.inferred(again)] == [{"MMLU"}]
    assert again.state is EvaluationState.FINISHED
    assert again.average is not None


def test_a_benchmark_that_the_new_harness_cannot_make_has_no_score_and_the_others_go_on(works: Works) -> None:
    first, second = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(failure="There is no task 'arc'.")
    plan = works.done()
    assert works.verdicts(plan)["plain-ARC", "ARC"] == "incomparable"
    for old in (first, second):
        again = works.again(old)
        assert (again.state, again.average) == (EvaluationState.FINISHED, None)
        assert "No score for ARC" in again.sentence
        assert "There is no task 'arc'." in again.sentence
    assert works.read(plan).state is RerunState.FINISHED


def test_a_model_that_fails_does_not_stop_the_rest(works: Works) -> None:
    first, second = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    works.yard.report(order.attempt, "failed", failure="config", sentence="It has no config.")
    works.go_on()
    states = {old: works.again(old).state for old in (first, second)}
    # What carries over does not fail: the model keeps the scores that did not change.
    assert sorted(state.value for state in states.values()) == ["finished", "finished"]
    assert sorted(works.again(old).average is None for old in (first, second)) == [False, True]
    assert works.read(plan).state is RerunState.FINISHED


def test_new_submissions_go_before_a_re_run(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    newcomer = works.submit(77)
    with db.session(works.yard.engine, read_only=True) as session:
        turns = session.exec(select(Job.turn_at).where(Job.evaluation_id == newcomer)).all()
        theirs = session.exec(
            select(Job.turn_at).join(Evaluation).where(Evaluation.rerun_id == plan, col(Job.turn_at).is_not(None))
        ).all()
    assert max(turns) + 20 * BOOST < min(theirs)


def test_a_re_run_costs_the_submitter_no_place_in_the_queue(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    works.start(works.planned())
    works.look()
    newcomer = works.submit(77)
    assert works.yard.job(newcomer, Stage.PREPARE, "ARC").turn_at == works.yard.now


def test_a_paused_plan_gives_nothing_out_and_goes_on_where_it_was(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    with db.session(works.yard.engine) as session:
        plans.pause(session, plan)
    assert works.work() == 0
    with db.session(works.yard.engine) as session:
        plans.resume(session, plan, now=works.yard.now)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED


def test_a_budget_stops_further_inference_and_a_larger_one_goes_on(works: Works) -> None:
    old = works.finished(3)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned(budget_seconds=1)
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    assert order.work.stage is Stage.INFER
    works.yard.report(order.attempt, "started")
    works.yard.wait(5)
    works.answer(order)
    works.look()
    works.go_on()
    row = works.read(plan)
    assert row.state is RerunState.PAUSED
    assert "budget" in row.sentence
    assert sum(works.again(one).average is not None for one in old) == 1
    works.start(plan, budget_seconds=1000)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    assert all(works.again(one).average is not None for one in old)


def test_starting_again_takes_up_what_came_since(works: Works) -> None:
    works.finished(1)
    plan = works.done()
    late = works.submit(50)
    works.work()
    works.start(plan)
    works.go_on()
    assert works.again(late).state is EvaluationState.FINISHED
    before = works.yard.rows()
    works.start(plan)
    works.go_on()
    assert works.yard.rows() == before


def test_a_choice_of_benchmarks_leaves_the_rest_for_later(works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    works.sheets[NEW, "MMLU"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan, only=["ARC"])
    works.go_on()
    assert (works.again(old).state, works.again(old).average) == (EvaluationState.FINISHED, None)
    works.start(plan, only=[])
    works.go_on()
    again = works.again(old)
    assert again.average is not None
    assert [set(asked) for asked in works.inferred(again)] == [{"ARC"}, {"ARC", "MMLU"}]


def test_abandoning_cancels_what_has_not_ended_and_keeps_the_rest(works: Works) -> None:
    first, second = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    with db.session(works.yard.engine) as session:
        _, stopped = plans.abandon(session, plan, now=works.yard.now)
    assert stopped == [order.attempt]
    assert works.read(plan).state is RerunState.ABANDONED
    assert works.work() == 0
    assert {works.again(old).suite for old in (first, second)} == {""}
    # A new plan begins anew with what the old one has left.
    again = works.done()
    assert works.read(again).state is RerunState.FINISHED
    assert all(works.again(old).average is not None for old in (first, second))


def test_an_old_sheet_without_a_class_is_compared_alone(works: Works) -> None:
    first, second = works.finished(2)
    with db.session(works.yard.engine) as session:
        for job in session.exec(select(Job).where(Job.stage == Stage.PREPARE)):
            job.result = {name: value for name, value in job.result.items() if name != "sheet_class"}
            session.add(job)
    plan = works.done()
    assert {named for named, _ in works.verdicts(plan)} == {f"evaluation-{first}", f"evaluation-{second}"}
    assert works.read(plan).state is RerunState.FINISHED


def test_a_class_whose_first_model_is_gone_is_compared_by_another_one(works: Works) -> None:
    works.finished(2)
    plan = works.plan()
    works.look()
    works.yard.workers()
    for order in works.yard.tick():
        works.yard.report(order.attempt, "failed", failure="gated", sentence="It is gated now.")
    works.go_on()
    assert set(works.verdicts(plan).values()) == {"same"}


def test_a_plan_names_no_model_whose_sheet_could_not_be_made(works: Works) -> None:
    """Everybody reads the plan, and the model may be hidden."""
    works.finished(1)
    plan = works.plan()
    works.look()
    works.yard.workers()
    for order in works.yard.tick():
        works.yard.report(order.attempt, "failed", failure="config", sentence="Model acme/hidden has no config.")
    works.go_on()
    with db.session(works.yard.engine, read_only=True) as session:
        said = {row.sentence for row in session.exec(select(RerunBenchmark).where(RerunBenchmark.rerun_id == plan))}
    again = works.again(1).id
    (sentence,) = said
    assert sentence == (
        f"Its sheet could not be made for any model that was tried (config). Evaluation {again} has the sentence."
    )


def test_what_was_carried_over_is_carried_over_again(works: Works) -> None:
    (old,) = works.finished(1)
    works.switch(works.done())
    second = works.planned(harness="0.4.15")
    works.start(second)
    works.go_on()
    newest = works.again(works.again(old).id or 0)
    assert newest.average == works.yard.evaluation(old).average
    (own,) = [row for row in works.yard.scores(newest.id or 0) if (row.benchmark, row.metric) == ("ARC", "value")]
    assert own.provenance["carried"]["made_by"] == old


def test_equal_numbers_that_a_suite_counts_otherwise_give_another_value(works: Works) -> None:
    (old,) = works.finished(1)
    suite = make_suite("ARC", "MMLU", version="2")
    plain = [benchmark.model_copy(update={"normalised": False}) for benchmark in suite.benchmarks]
    works.yard.suites = works.runner.suites = {"small": suite.model_copy(update={"benchmarks": tuple(plain)})}
    plan = works.planned(harness=None)
    works.start(plan)
    works.go_on()
    assert set(works.verdicts(plan).values()) == {"same"}
    again = works.again(old)
    assert (works.yard.evaluation(old).average, again.average) == (pytest.approx(100 / 3), pytest.approx(50.0))


def test_a_hub_that_is_killed_at_any_step_goes_on(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    old = works.finished(3)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.plan()
    for _ in range(100):
        # Each look is by a process of its own, which knows nothing but the database.
        works.runner = type(works.runner)(works.yard.engine, works.yard.suites, works.store, at_once=1)
        works.look()
        works.work()
        if works.read(plan).state is RerunState.READY:
            works.start(plan)
        if works.read(plan).state is RerunState.FINISHED:
            break
    assert all(works.again(one).average is not None for one in old)
    with db.session(works.yard.engine, read_only=True) as session:
        progress = read_progress(session, plans.read(session, plan), now=works.yard.now)
    assert (progress.planned, progress.finished, progress.coverage) == (3, 3, 1.0)


def test_trials_are_no_part_of_a_re_run(works: Works) -> None:
    works.finished(1)
    works.submit(8, document_limit=5)
    works.work()
    plan = works.done()
    with db.session(works.yard.engine, read_only=True) as session:
        assert read_progress(session, plans.read(session, plan), now=works.yard.now).planned == 1


def test_the_order_of_turns_is_the_chosen_one(works: Works) -> None:
    first, second, third = works.finished(3)
    facts = {first: (10.0, 700, 0, 3), second: (30.0, 900, 0, 1), third: (20.0, 800, 2, 2)}
    with db.session(works.yard.engine) as session:
        for one, (average, parameters, votes, days) in facts.items():
            row = session.exec(select(Evaluation).where(Evaluation.id == one)).one()
            row.average, row.created_at = average, works.yard.now - timedelta(days=days)
            submission = session.exec(select(Submission).where(Submission.id == row.submission_id)).one()
            submission.parameters = parameters
            for number in range(votes):
                subject = f"{one}-{number}"
                person = Person(issuer="i", subject=subject, name="p", made_at=works.yard.now, seen_at=works.yard.now)
                session.add(person)
                session.flush()
                session.add(Vote(revision=submission.revision, person_id=person.id or 0, at=works.yard.now))
    plan = works.plan()
    orders = {
        "rank": [second, third, first],
        "age": [first, third, second],
        "votes": [third, second, first],
        "size": [first, third, second],
    }
    for name, order in orders.items():
        with db.session(works.yard.engine) as session:
            chosen = plans.read(session, plan)
            chosen.first = name
            session.flush()
            assert plans.in_order(session, chosen) == order, name


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"harness": "0.4.13"}, Refused, "shows version 1 already"),
        ({"harness": None}, Refused, "shows version 1 already"),
        ({"harness": "newest"}, Refused, "names no harness"),
        ({"only": ["ARK"]}, NotFound, "Did you mean 'ARC'"),
        ({"coverage_goal": 3.0}, Refused, "between 0 and 100"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_the_next_step(
    works: Works, fields: dict[str, object], kind: type[Exception], says: str
) -> None:
    works.finished(1)
    with pytest.raises(kind, match=says):
        works.plan(**fields)


def test_there_is_one_open_plan_for_a_suite(works: Works) -> None:
    works.finished(1)
    plan = works.plan()
    with pytest.raises(WrongState, match=f"Re-run {plan} of 'small' is planning"):
        works.plan(harness="0.4.15")


def test_a_plan_without_finished_evaluations_is_refused(works: Works) -> None:
    with pytest.raises(Refused, match=r"No evaluation is finished.*Name lm_eval 0\.4\.14 in the suite's file"):
        works.plan()


def test_moves_that_a_state_does_not_allow_are_refused(works: Works) -> None:
    works.finished(1)
    plan = works.plan()
    with db.session(works.yard.engine) as session:
        with pytest.raises(WrongState, match="still comparing"):
            plans.start(session, plan, now=works.yard.now)
        with pytest.raises(WrongState, match="not paused"):
            plans.resume(session, plan, now=works.yard.now)
        with pytest.raises(NotFound, match="no re-run 99"):
            plans.pause(session, 99)
        plans.abandon(session, plan, now=works.yard.now)
        with pytest.raises(WrongState, match="already abandoned"):
            plans.abandon(session, plan, now=works.yard.now)
        with pytest.raises(WrongState, match="was abandoned"):
            plans.start(session, plan, now=works.yard.now)


def test_a_model_submitted_under_the_new_version_meanwhile_counts_as_done(works: Works) -> None:
    old, _ = works.finished(2)
    plan = works.planned()
    with db.session(works.yard.engine, read_only=True) as session:
        after = suite_at(session, plans.read(session, plan), NEW)
        (asked,) = session.exec(select(Submission).where(Submission.revision == f"{2:040x}")).all()
        key = key_of(asked, suite="small", suite_version=NEW, limit=None, engine=EngineFamily.SCRIPTED)
    works.yard.suites = {"small": after}
    theirs = works.submit(2)
    with db.session(works.yard.engine) as session:
        session.exec(update(Evaluation).where(col(Evaluation.id) == theirs).values(key=key))
    works.work()
    ordered = len(works.orders)
    works.start(plan)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    assert len(works.orders) == ordered
    with db.session(works.yard.engine, read_only=True) as session:
        made = session.exec(select(Evaluation.id).where(Evaluation.suite_version == NEW)).all()
        progress = read_progress(session, works.read(plan), now=works.yard.now)
    assert sorted(one for one in made if one) == sorted([theirs, works.again(old).id or 0])
    assert (progress.planned, progress.made, progress.whole) == (2, 2, 2)
    with db.session(works.yard.engine, read_only=True) as session:
        report = read_report(session, plan, now=works.yard.now)
    assert sorted(one.after for one in (*report.models, *report.left_out)) == sorted(one for one in made if one)


def test_a_counterpart_that_another_plan_made_counts_for_this_plan_too(works: Works) -> None:
    works.finished(2)
    first = works.done()
    works.done(harness="0.4.15")
    works.switch(first)
    ordered = len(works.orders)
    third = works.planned(harness="0.4.15")
    works.start(third)
    works.go_on()
    assert works.read(third).state is RerunState.FINISHED
    with db.session(works.yard.engine, read_only=True) as session:
        progress = read_progress(session, works.read(third), now=works.yard.now)
    assert (progress.planned, progress.made, progress.whole) == (2, 2, 2)
    assert len(works.orders) == ordered


def test_an_evaluation_that_is_cancelled_while_its_plan_runs_stays_cancelled(works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    with db.session(works.yard.engine) as session:
        jobs.cancel(session, works.again(old).id or 0, works.yard.now)
    works.go_on()
    with db.session(works.yard.engine, read_only=True) as session:
        states = session.exec(select(Evaluation.state).where(Evaluation.rerun_of == old)).all()
    assert list(states) == [EvaluationState.CANCELLED]
    assert works.read(plan).state is RerunState.FINISHED


def test_a_model_that_is_gone_keeps_its_place_in_the_plan_and_what_carries_over(works: Works) -> None:
    first, second = works.finished(2)
    plan = works.plan()
    works.look()
    works.yard.workers()
    for order in works.yard.tick():
        works.yard.report(order.attempt, "failed", failure="gated", sentence="It is gated now.")
    works.go_on()
    assert works.again(first).state is EvaluationState.PLANNED
    works.start(plan)
    works.go_on()
    for old in (first, second):
        again = works.again(old)
        assert (again.state, again.average) == (EvaluationState.FINISHED, works.yard.evaluation(old).average)
    assert works.read(plan).state is RerunState.FINISHED


def test_a_harness_whose_version_makes_too_long_a_name_is_refused(works: Works) -> None:
    works.finished(1)
    with pytest.raises(Refused, match="at most 60 characters"):
        works.plan(harness="0.4.14." + "a" * 60)
    assert works.read(works.plan()).to_version == NEW


def test_every_score_of_a_re_run_has_one_attempt_that_made_it(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    works.done()
    with db.session(works.yard.engine, read_only=True) as session:
        made = set(session.exec(select(Attempt.id)).all())
        assert set(session.exec(select(Score.attempt_id)).all()) <= made
        assert session.exec(select(Rerun)).one().state is RerunState.FINISHED


def test_two_hubs_that_look_at_once_make_one_counterpart(works: Works, engine: Engine) -> None:
    old = works.finished(4)
    plan = works.planned()
    works.start(plan)
    other = Works(Yard(engine, now=works.yard.now), works.store)
    looks = [threading.Thread(target=one.runner.look, args=(works.yard.now,)) for one in (works, other)]
    for one in looks:
        one.start()
    for one in looks:
        one.join()
    works.go_on()
    with db.session(engine, read_only=True) as session:
        again = session.exec(select(Evaluation.rerun_of).where(Evaluation.rerun_id == plan)).all()
    assert sorted(of for of in again if of is not None) == old
