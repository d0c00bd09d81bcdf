"""What each route needs: a table that names every route, and what it means for nobody, persons and tokens."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sqlmodel import Session
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState
from orchestrator.people import Role, Scope
from orchestrator.tables import Evaluation
from submissions.context import Hub
from submissions.people.permits import LIMITED, ROUTES, Need, check
from submissions.people.refusals import NotAllowed, NotSignedIn
from submissions.people.viewer import ALL_SCOPES, LOCAL, NOBODY, Viewer
from submissions.site import make_site
from tests.submissions.conftest import problem
from tests.submissions.factories import add_evaluation
from tests.submissions.people.browser import SITE, Browser
from tests.submissions.people.conftest import SignIn


def routes_of(app: Any) -> Iterable[str]:
    for route in app.routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            if method != "HEAD":
                yield f"{method} {route.path}"


def test_the_table_names_every_route_and_no_other(hub: Hub) -> None:
    found = set(routes_of(make_site(hub)))
    assert found - set(ROUTES) == set(), "say in submissions.people.permits what these need"
    assert set(ROUTES) - found == set(), "these are no routes any more"
    assert set(LIMITED) <= found


def test_every_route_that_changes_something_needs_somebody() -> None:
    open_to_all = {name for name, need in ROUTES.items() if need is Need.EVERYBODY and not name.startswith("GET ")}
    assert open_to_all == {"POST /signout"}


def test_the_routes_of_the_site_all_pass_through_the_table(hub: Hub) -> None:
    for route in make_site(hub).routes:
        if isinstance(route, APIRoute):
            names = [getattr(one.call, "__name__", "") for one in route.dependant.dependencies]
            assert "enforce" in names, route.path


def test_a_route_that_the_table_does_not_name_is_for_admins_alone(hub: Hub) -> None:
    app = make_site(hub)

    @app.get("/forgotten")
    def forgotten() -> str:
        return "secret"

    with TestClient(app, base_url=SITE, follow_redirects=False) as client:
        assert client.get("/forgotten").status_code == 303


@pytest.mark.parametrize("need", Need)
def test_nobody_may_only_what_everybody_may(need: Need) -> None:
    if need is Need.EVERYBODY:
        check(NOBODY, need)
        return
    with pytest.raises(NotSignedIn):
        check(NOBODY, need)


@pytest.mark.parametrize("need", Need)
def test_without_accounts_whoever_is_there_may_everything(need: Need) -> None:
    check(LOCAL, need)


@pytest.mark.parametrize(
    ("role", "scopes", "may"),
    [
        (Role.SUBMITTER, ALL_SCOPES, {Need.EVERYBODY, Need.PERSON, Need.SUBMITTER, Need.OWNER}),
        (Role.OPERATOR, ALL_SCOPES, set(Need) - {Need.ADMIN}),
        (Role.ADMIN, ALL_SCOPES, set(Need)),
        (Role.ADMIN, {Scope.READ}, {Need.EVERYBODY, Need.PERSON}),
        (Role.ADMIN, {Scope.SUBMIT}, {Need.SUBMITTER, Need.OWNER}),
        (Role.ADMIN, {Scope.OPERATE}, {Need.OPERATOR, Need.ADMIN}),
        (Role.SUBMITTER, {Scope.OPERATE}, set()),
    ],
)
def test_a_role_and_a_tokens_scopes_both_limit(role: Role, scopes: frozenset[Scope], may: set[Need]) -> None:
    viewer = Viewer(person=1, name="x", role=role, scopes=frozenset(scopes))
    allowed = set()
    for need in Need:
        try:
            check(viewer, need)
        except NotAllowed:
            continue
        allowed.add(need)
    assert allowed == may


def test_what_a_reader_asks_for_without_signing_in_is_refused_with_the_next_step(
    site: Callable[[], TestClient], hub: Hub
) -> None:
    nobody = Browser(site())
    refused = problem(nobody.post("/api/v1/evaluations", json={"model": "a/b"}), 401)
    assert "evalyard login" in refused["detail"]
    assert nobody.post("/api/v1/evaluations", json={}).headers["www-authenticate"] == "Bearer"
    assert nobody.get("/").status_code == 200


def test_only_the_submitter_and_operators_cancel_and_retry(
    sign_in: SignIn, site: Callable[[], TestClient], hub: Hub
) -> None:
    ada, eve, root = sign_in("ada"), sign_in("eve"), sign_in("root")
    mine = ada.get("/api/v1/account").json()["person"]
    with hub.writing() as session:
        first, second = (
            add_evaluation(
                session, hub.suites["demo"], state=EvaluationState.RUNNING, person_id=mine, model=f"acme/m{number}"
            ).id
            for number in range(2)
        )
    for path in (f"/api/v1/evaluations/{first}/cancel", f"/evaluations/{first}/retry"):
        assert eve.post(path).status_code == 403
        assert Browser(site()).post(path).status_code == 401
    assert "Cancel this evaluation" not in eve.get(f"/evaluations/{first}").text
    assert "Cancel this evaluation" in ada.get(f"/evaluations/{first}").text
    assert ada.post(f"/api/v1/evaluations/{first}/cancel").status_code == 200
    assert root.post(f"/api/v1/evaluations/{second}/cancel").status_code == 200
    problem(ada.post(f"/api/v1/evaluations/{second}/boost"), 403)


@pytest.mark.parametrize("spelling", ["{}.0", "{}.000", "0{}", "+{}", " {}", "0_{}", "{}e0", "x", "0", "-{}"])
@pytest.mark.parametrize("where", ["/evaluations/{}/cancel", "/api/v1/evaluations/{}/cancel"])
def test_no_spelling_of_anothers_number_passes_for_ones_own(
    sign_in: SignIn, hub: Hub, spelling: str, where: str
) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    with hub.writing() as session:
        number = _running(session, hub, ada.get("/api/v1/account").json()["person"], 1).id
    answer = eve.post(where.format(spelling.format(number).replace("+", "%2B").replace(" ", "%20")))
    assert answer.status_code in (403, 404)
    assert "acme/m1" not in answer.text
    with hub.reading() as session:
        assert session.get_one(Evaluation, number).state is EvaluationState.RUNNING


def test_a_browser_that_does_not_say_where_it_comes_from_changes_nothing(sign_in: SignIn) -> None:
    """A cookie goes along with a forged request, too; a token does not."""
    ada = sign_in("ada")
    assert "does not say which page" in problem(ada.client.post("/api/v1/tokens", json={"name": "x"}), 403)["detail"]
    headers = {"authorization": f"Bearer {ada.token()}"}
    assert ada.client.post("/api/v1/tokens", json={"name": "x"}, headers=headers).status_code == 201


def test_writes_are_limited_for_each_person_however_they_come(sign_in: SignIn) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    token = ada.token()
    statuses = [ada.post("/api/v1/tokens/999/nothing-there").status_code for _ in range(3)]
    assert set(statuses) == {404}
    for _ in range(130):
        last = ada.client.delete("/api/v1/tokens/999", headers={"authorization": f"bearer {token}"})
    assert (last.status_code, int(last.headers["retry-after"]) > 0) == (429, True)
    assert ada.client.delete("/api/v1/tokens/999", headers={"authorization": f"BEARER {token}"}).status_code == 429
    assert ada.post("/api/v1/tokens", json={"name": "y"}).status_code == 429
    assert eve.post("/api/v1/tokens", json={"name": "y"}).status_code == 201


def _running(session: Session, hub: Hub, person: int, number: int) -> Evaluation:
    state = EvaluationState.RUNNING
    return add_evaluation(session, hub.suites["demo"], state=state, person_id=person, model=f"acme/m{number}")
