"""Who sees what: another person's walk over every page, export and operation finds nothing of a private model."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlmodel import Session, col, select
from starlette.testclient import TestClient

from orchestrator import series
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.modes import set_mode
from orchestrator.people import Visibility
from orchestrator.tables import Cluster, Evaluation, Event, Health, Job, Outcome, Rerun, Score, Submission
from orchestrator.visibility import PUBLIC, Audience, restrict
from orchestrator.wire import FailureKind, Mode
from submissions.context import Hub
from submissions.people.permits import ROUTES
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples
from tests.submissions.people.browser import Browser
from tests.submissions.people.conftest import SignIn

SECRET = "Zanzibar"
QUERIES = {
    "/": ["", "?suite=demo&sort=average", "?suite=demo&q=acme", "?suite=demo&show=raw"],
    "/api/v1/board": ["?suite=demo", "?suite=demo&format=csv", "?suite=demo&search=acme"],
    "/api/v1/evaluations": ["", "?limit=1", "?before=3", "?state=failed", "?suite=demo"],
    "/submit": ["", "?model=acme/x"],
    "/pictures/{kind}.{form}": ["?suite=demo", "?suite=demo&pin=1&pin=2"],
    "/compare": ["?suite=demo&pin=1&pin=2", "?suite=demo&pin=2&pin=5"],
    "/diff": ["?a=2&b=1", "?a=2&b=5", "?a=2&b=1&benchmark=Letters", "?a=2&b=5&benchmark=Letters"],
    "/api/v1/diff": ["?a=2&b=1&benchmark=Letters", "?a=2&b=5&benchmark=Letters"],
    "/api/v1/evaluations/{evaluation_id}/gate": ["?baseline=1", "?baseline=2&benchmark=Letters"],
    "/reruns/{rerun_id}/report": ["", "?format=md", "?format=csv"],
    "/api/v1/reruns/{rerun_id}/report": ["", "?format=md", "?format=csv"],
}
"""Ways to ask for a page; once and plainly where nothing is said."""


def fill(hub: Hub, person: int) -> dict[str, int]:
    """A hub with a public model and, of this person, hidden ones in every state; the numbers of their evaluations."""
    hidden = {"person_id": person, "submitter": "ada", "visibility": Visibility.PRIVATE}
    made = {}
    with hub.writing() as session:
        suite = hub.suites["demo"]
        made["public"] = add_evaluation(session, suite, model="acme/known", values=DEMO).id
        made["finished"] = add_evaluation(session, suite, model=f"acme/{SECRET}-1", values=DEMO, **hidden).id
        made["running"] = add_evaluation(
            session, suite, model=f"acme/{SECRET}-2", state=EvaluationState.RUNNING, requests=(1, 9), **hidden
        ).id
        made["failed"] = add_evaluation(
            session,
            suite,
            model=f"acme/{SECRET}-3",
            state=EvaluationState.FAILED,
            failure=FailureKind.WEIGHTS,
            sentence=f"{SECRET} has no weights.",
            log_tail=f"{SECRET}: no such file",
            **hidden,
        ).id
        team = hidden | {"visibility": Visibility.TEAM, "team": "vision"}
        made["team"] = add_evaluation(session, suite, model=f"acme/{SECRET}-4", values=DEMO, **team).id
        for step, number in enumerate(made.values()):
            series.add(session, number or 0, owner=person, name="demo", step=step, now=NOON)
        for number in (made["finished"], made["team"]):
            strata = [{"documents": "d", "count": 8, "weight": 100.0, "bits": "/w=="}]
            session.add(Outcome(evaluation_id=number or 0, benchmark="Letters", strata=strata))
        _rerun(session, made["finished"] or 0)
        warm = session.exec(select(Submission.revision).where(Submission.model == f"acme/{SECRET}-1")).one()
        now = datetime.now(UTC)
        add_worker(session, "engine-1", kind="engine", now=now, engine_family="vllm", device_type="cuda", warm=[warm])
    numbers = {name: number for name, number in made.items() if number is not None}
    for number in (numbers["finished"], numbers["team"]):
        keep_samples(hub, number, "Letters", task="letters", records=[choice_sample(1) | {"model": SECRET}])
    return numbers


def _rerun(session: Session, old: int) -> None:
    """A finished plan that made the hidden model again under version 2, with other scores."""
    moment = {"made_at": NOON, "ready_at": NOON, "started_at": NOON, "ended_at": NOON}
    plan = Rerun(suite="demo", from_version="1", to_version="2", state=RerunState.FINISHED, **moment)
    session.add(plan)
    session.flush()
    first = session.get(Evaluation, old)
    assert first is not None
    facts = first.model_dump(exclude={"id"})
    facts |= {"key": "again", "suite_version": "2", "rerun_id": plan.id, "rerun_of": old, "average": 1.0}
    again = Evaluation(**facts)
    session.add(again)
    session.flush()
    for score in session.exec(select(Score).where(Score.evaluation_id == old)).all():
        session.add(Score(**score.model_dump(exclude={"id"}) | {"evaluation_id": again.id, "value": 1.0}))


def addresses(hub: Hub, numbers: dict[str, int]) -> Iterator[str]:
    """Every address of every GET route: of each evaluation, benchmark and suite."""
    values = {
        "{evaluation_id}": [str(number) for number in numbers.values()],
        "{benchmark}": ["Letters"],
        "{name}": ["demo"],
        "{name:path}": ["acme/known"],
        "{kind}": ["size", "time", "compare"],
        "{form}": ["svg", "json"],
        "{rerun_id}": ["1"],
    }
    for route in ROUTES:
        method, path = route.split(" ")
        if method != "GET" or path in ("/signin", "/signin/back"):
            continue
        found = [name for name in values if name in path]
        assert path.count("{") == len(found), f"say here what {path} takes"
        for chosen in product(*(values[name] for name in found)):
            filled = path
            for name, value in zip(found, chosen, strict=True):
                filled = filled.replace(name, value)
            for query in QUERIES.get(path, [""]):
                yield filled + query


def seen_by(browser: Browser, hub: Hub, numbers: dict[str, int]) -> set[str]:
    """Addresses whose answer names the secret."""
    found = set()
    for address in addresses(hub, numbers):
        answer = browser.get(address)
        assert answer.status_code < 500, (address, answer.text)
        if SECRET in answer.text or SECRET in str(answer.headers):
            found.add(address)
    return found


def test_nobody_finds_a_private_model_anywhere(hub: Hub, sign_in: SignIn, site: Callable[[], TestClient]) -> None:
    ada, eve, mate, root = sign_in("ada"), sign_in("eve"), sign_in("mate", groups=["Vision"]), sign_in("root")
    numbers = fill(hub, ada.get("/api/v1/account").json()["person"])
    for other in (eve, Browser(site())):
        assert seen_by(other, hub, numbers) == set()
    mine = seen_by(ada, hub, numbers)
    for name in ("finished", "running", "failed", "team"):
        assert {f"/evaluations/{numbers[name]}", f"/api/v1/evaluations/{numbers[name]}"} <= mine
    assert {"/?suite=demo&q=acme", "/api/v1/board?suite=demo&format=csv", "/queue", "/api/v1/queue"} <= mine
    assert f"/api/v1/evaluations/{numbers['finished']}/samples/Letters" in mine
    assert f"/evaluations/{numbers['team']}" in seen_by(mate, hub, numbers)
    assert not {f"/evaluations/{numbers[name]}" for name in ("finished", "running", "failed")} & seen_by(
        mate, hub, numbers
    )
    assert mine <= seen_by(root, hub, numbers)


def test_what_one_may_not_see_is_as_if_it_were_not_there(hub: Hub, sign_in: SignIn) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    number = fill(hub, ada.get("/api/v1/account").json()["person"])["finished"]
    nowhere = eve.get("/api/v1/evaluations/9999")
    hidden = eve.get(f"/api/v1/evaluations/{number}")
    assert (hidden.status_code, hidden.text.replace(str(number), "9999")) == (404, nowhere.text)
    with hub.reading() as session:
        model = session.exec(select(Submission.model).where(Submission.model == f"acme/{SECRET}-1")).one()
    asked, unknown = (eve.get(f"/models/{name}") for name in (model, "acme/nowhere-at-all"))
    assert asked.status_code == unknown.status_code
    assert asked.text.replace(model, "acme/nowhere-at-all") == unknown.text
    for path in ("cancel", "retry", "boost"):
        assert eve.post(f"/api/v1/evaluations/{number}/{path}").status_code in (403, 404)
    assert eve.post(f"/api/v1/evaluations/{number}/cancel").status_code == 404


def test_the_commit_of_a_hidden_models_weights_is_on_nobody_elses_queue(hub: Hub, sign_in: SignIn) -> None:
    """Who knows a commit knows the model."""
    ada, eve, root = sign_in("ada"), sign_in("eve"), sign_in("root")
    fill(hub, ada.get("/api/v1/account").json()["person"])
    with hub.writing() as session:
        add_worker(session, "engine-2", kind="engine", now=datetime.now(UTC), warm=["e" * 40])

    def warm(browser: Browser) -> dict[str, list[str]]:
        return {one["name"]: one["warm"] for one in browser.get("/api/v1/queue").json()["workers"]}

    assert warm(eve) == {"engine-1": [], "engine-2": []}
    assert warm(ada) == {"engine-1": [f"acme/{SECRET}-1"], "engine-2": []}
    assert warm(root) == {"engine-1": [f"acme/{SECRET}-1"], "engine-2": ["eeeeeee"]}


def test_one_rule_narrows_every_kind_of_query(hub: Hub) -> None:
    numbers = fill(hub, 7)
    with hub.reading() as session:
        everything = _counts(session)
    for audience, seen in (
        (PUBLIC, {numbers["public"]}),
        (Audience(person=7), set(numbers.values())),
        (Audience(person=8, teams=frozenset({"vision"})), {numbers["public"], numbers["team"]}),
        (Audience(person=8, teams=frozenset({"audio"})), {numbers["public"]}),
    ):
        with hub.reading() as session:
            restrict(session, audience)
            assert set(session.exec(select(Evaluation.id).where(col(Evaluation.rerun_id).is_(None))).all()) == seen
            assert {number for number in numbers.values() if session.get(Evaluation, number)} == seen
            if seen == set(numbers.values()):
                assert _counts(session) == everything


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"visibility": "team"}, "Name the team: audio, vision."),
        ({"visibility": "team", "team": "nlp"}, "You are not in a team of that name."),
        ({"team": "vision"}, "A team goes with visibility 'team' only."),
    ],
)
def test_a_team_must_be_ones_own(sign_in: SignIn, asked: dict[str, str], words: str) -> None:
    ada = sign_in("ada", groups=["Vision", "Audio"])
    answer = ada.post("/api/v1/evaluations", json={"model": "a/b", "suite": "demo"} | asked)
    assert (answer.status_code, answer.json()["faults"][0]["sentence"][: len(words)]) == (422, words)


def test_what_others_call_their_series_is_not_on_an_evaluations_page(hub: Hub, sign_in: SignIn) -> None:
    ada, eve, root = (sign_in(name) for name in ("ada", "eve", "root"))
    people = {name: browser.get("/api/v1/account").json()["person"] for name, browser in (("ada", ada), ("eve", eve))}
    with hub.writing() as session:
        number = add_evaluation(session, hub.suites["demo"], model="acme/m", values=DEMO, person_id=people["ada"]).id
        for name, person in people.items():
            series.add(session, number or 0, owner=person, name=f"of-{name}", step=1, now=NOON)

    def named(browser: Browser) -> set[str]:
        return {one["name"] for one in browser.get(f"/api/v1/evaluations/{number}").json()["series"]}

    assert (named(ada), named(eve), named(root)) == ({"of-ada"}, {"of-ada", "of-eve"}, {"of-ada", "of-eve"})


def _counts(session: Session) -> list[int]:
    return [len(session.exec(select(kind)).all()) for kind in (Submission, Evaluation, Job, Score, Event)]  # type: ignore[call-overload]


def test_clusters_are_for_operators_on_the_queue_page_too(
    hub: Hub, sign_in: SignIn, site: Callable[[], TestClient]
) -> None:
    """Schedulers' words name hosts, accounts and partitions."""
    now = datetime.now(UTC)
    with hub.writing() as session:
        session.add(
            Cluster(name="a100", kind="slurm", token="t", looked_at=now, verdict="sbatch: no account x", facts={})
        )
    for other in (Browser(site()), sign_in("eve")):
        assert "sbatch" not in other.get("/queue").text
    assert "sbatch: no account x" in sign_in("root").get("/queue").text


def test_operators_read_how_a_worker_that_is_held_back_works_again(
    hub: Hub, sign_in: SignIn, site: Callable[[], TestClient]
) -> None:
    now = datetime.now(UTC)
    with hub.writing() as session:
        add_worker(session, "gpu-7", kind="engine", now=now)
        until, sentence = now + timedelta(minutes=5), "held back until 12:00: all failed here."
        session.add(Health(worker="gpu-7", kind="engine", held_back_until=until, times_held_back=1, sentence=sentence))
    assert f"{sentence} Once its host is mended: " in sign_in("root").get("/operate").text
    text = Browser(site()).get("/queue").text
    assert (sentence in text, "Once its host is mended" in text) == (True, False)


def test_operators_read_who_paused_since_when_and_how_to_resume_and_nobody_else_does(
    hub: Hub, sign_in: SignIn, site: Callable[[], TestClient]
) -> None:
    now = datetime.now(UTC)
    with hub.writing() as session:
        add_worker(session, "gpu-7", kind="engine", now=now)
        session.add(Cluster(name="a100", kind="slurm", token="t", looked_at=now, verdict="An operator paused it."))
    root, eve = sign_in("root"), sign_in("eve")
    for what in ("workers/gpu-7/pause", "clusters/a100/pause"):
        assert root.post(f"/api/v1/{what}").is_success
    text = root.get("/operate").text
    assert [text.count(said) for said in ("By root, just now.", " worker resume gpu-7<", " cluster resume a100<")] == [
        2,
        1,
        1,
    ]
    (worker,) = root.get("/api/v1/queue").json()["workers"]
    assert (worker["mode_by"], worker["mode_since"][:4]) == ("root", f"{now:%Y}")
    with hub.writing() as session:
        set_mode(session, "gpu-7", Mode.PAUSED, by="zoe")
    assert root.get("/api/v1/queue").json()["workers"] == [worker], "who asked for what it was already did not do it"
    for other in (Browser(site()), eve):
        assert not any(said in other.get("/queue").text for said in ("By root", " resume "))
        (worker,) = other.get("/api/v1/queue").json()["workers"]
        assert (worker["mode"], worker["mode_by"], worker["mode_since"]) == ("paused", "", None)
    for what in ("workers/gpu-7/resume", "clusters/a100/resume"):
        assert root.post(f"/api/v1/{what}").is_success
    assert "By root" not in root.get("/operate").text
