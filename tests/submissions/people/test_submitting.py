"""Submitting with accounts: whose it is, who learns of it, how often, and asking twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.people import Visibility
from orchestrator.tables import Evaluation, Submission
from submissions.context import Hub
from submissions.site import make_site
from tests.submissions.conftest import problem
from tests.submissions.factories import rows
from tests.submissions.people.browser import SITE, Browser
from tests.submissions.people.conftest import SignIn


def asked(model: Path, **more: object) -> dict[str, object]:
    """A submission of what the mirror has: folders are for operators."""
    return {"model": f"{model.parent.name}/{model.name}", "suite": "demo"} | more


def test_a_submission_belongs_to_whoever_made_it(sign_in: SignIn, hub: Hub, model: Path) -> None:
    ada = sign_in("ada", groups=["Vision"])
    made = ada.post("/api/v1/evaluations", json=asked(model, visibility="team"))
    assert made.status_code == 201, made.text
    with hub.reading() as session:
        (row,) = session.exec(select(Submission)).all()
    assert (row.submitter, row.visibility, row.team) == ("ada", Visibility.TEAM, "vision")
    assert row.person_id == ada.get("/api/v1/account").json()["person"]


def test_the_form_offers_who_may_see_it_and_takes_it(sign_in: SignIn, hub: Hub, model: Path) -> None:
    ada = sign_in("ada")
    assert 'name="visibility"' in ada.get("/submit").text
    form = {"model": "models/tiny", "suite": "demo", "visibility": "private"}
    assert ada.post("/submit", data=form).headers["location"] == "/evaluations/1"
    refused = ada.post("/submit", data=form | {"visibility": "team", "limit": "3"})
    assert (refused.status_code, "You are in no team" in refused.text) == (422, True)


def test_two_who_may_not_see_each_others_evaluations_learn_nothing_of_them(
    sign_in: SignIn, hub: Hub, model: Path
) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    first = ada.post("/api/v1/evaluations", json=asked(model, visibility="private"))
    again = ada.post("/api/v1/evaluations", json=asked(model, visibility="private"))
    assert (first.status_code, again.json()["existing"]) == (201, True)
    other = eve.post("/api/v1/evaluations", json=asked(model, visibility="private"))
    public = eve.post("/api/v1/evaluations", json=asked(model))
    assert (other.status_code, public.status_code) == (201, 201)
    assert ada.post("/api/v1/evaluations", json=asked(model)).json()["evaluation"]["id"] == 3


def test_a_person_asks_for_so_many_in_a_day_whatever_it_is_called(
    sign_in: SignIn, hub: Hub, model: Path, provider: object
) -> None:
    app = make_site(
        hub.__class__(**{**vars(hub), "settings": hub.settings.model_copy(update={"submissions_per_day": 2})})
    )
    ada, root = sign_in("ada"), sign_in("root")
    mine = Browser(TestClient(app, base_url=SITE, follow_redirects=False))
    mine.take(ada.cookies)
    for limit in (1, 2):
        assert mine.post("/api/v1/evaluations", json=asked(model, limit=limit)).status_code == 201
    before = rows(hub)
    renamed = sign_in("ada", preferred_username="ADA")
    mine.take(renamed.cookies)
    refused = mine.post("/api/v1/evaluations", json=asked(model, limit=3))
    assert "asked for 2 new evaluations within 24 hours" in problem(refused, 429)["detail"]
    assert int(refused.headers["retry-after"]) > 80_000
    assert rows(hub) == before
    assert mine.post("/api/v1/evaluations", json=asked(model, limit=1)).status_code == 200  # it is there already
    mine.take(root.cookies)
    for limit in (3, 4, 5):
        assert mine.post("/api/v1/evaluations", json=asked(model, limit=limit)).status_code == 201


def test_a_teams_members_share_its_limit_whichever_team_they_name(sign_in: SignIn, hub: Hub, model: Path) -> None:
    app = make_site(
        hub.__class__(**{**vars(hub), "settings": hub.settings.model_copy(update={"team_submissions_per_day": 2})})
    )
    for limit, (name, groups, status) in enumerate(
        (("ada", ["Vision"], 201), ("bob", ["VISION", "audio"], 201), ("eve", ["vision"], 429), ("dan", [], 201)), 1
    ):
        person = Browser(TestClient(app, base_url=SITE, follow_redirects=False))
        person.take(sign_in(name, groups=groups).cookies)
        assert person.post("/api/v1/evaluations", json=asked(model, limit=limit)).status_code == status, name


def test_the_same_key_gets_the_same_answer_and_does_nothing_again(sign_in: SignIn, hub: Hub, model: Path) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    key = {"idempotency-key": "build 17"}
    first = ada.post("/api/v1/evaluations", json=asked(model), headers=key)
    again = ada.post("/api/v1/evaluations", json=asked(model), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.json()["existing"], again.json()["evaluation"]["id"]) == (False, 1)
    other = ada.post("/api/v1/evaluations", json=asked(model, limit=2), headers=key)
    assert "was used for another submission" in problem(other, 422)["detail"]
    assert eve.post("/api/v1/evaluations", json=asked(model), headers=key).status_code == 200  # a key of her own
    assert rows(hub)[1] == 1


def test_keys_that_come_at_the_same_moment_queue_one_evaluation(sign_in: SignIn, hub: Hub, model: Path) -> None:
    token = sign_in("ada").token()
    headers = {"authorization": f"Bearer {token}", "idempotency-key": "x"}

    def submit(_: int) -> tuple[int, int, bool]:
        with TestClient(make_site(hub), base_url=SITE) as client:
            answer = client.post("/api/v1/evaluations", json=asked(model), headers=headers)
        return answer.status_code, answer.json()["evaluation"]["id"], answer.json()["existing"]

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(submit, range(4))) == {(201, 1, False)}
    with hub.reading() as session:
        assert len(session.exec(select(Evaluation)).all()) == 1


def test_a_refused_submission_keeps_no_receipt(sign_in: SignIn, model: Path) -> None:
    ada = sign_in("ada")
    key = {"idempotency-key": "y"}
    weights = next(model.glob("*.safetensors"))
    content = weights.read_bytes()
    weights.unlink()
    assert ada.post("/api/v1/evaluations", json=asked(model), headers=key).status_code == 422
    weights.write_bytes(content)
    assert ada.post("/api/v1/evaluations", json=asked(model), headers=key).status_code == 201


@pytest.mark.parametrize("asked_for", ["private", "team"])
def test_without_accounts_everything_is_public(tmp_path: Path, asked_for: str) -> None:
    from tests.submissions.factories import make_hub

    with TestClient(make_site(make_hub(tmp_path / "alone")), base_url=SITE) as client:
        answer = client.post("/api/v1/evaluations", json={"model": "a/b", "visibility": asked_for})
    assert "no accounts" in problem(answer, 422)["detail"]


def test_only_operators_submit_folders_of_the_hubs_machine(sign_in: SignIn, model: Path) -> None:
    ada, root = sign_in("ada"), sign_in("root")
    for request in ({"model": str(model)}, {"model": " " + str(model)}, {"model": "a/b", "base_model": "/etc"}):
        refused = problem(ada.post("/api/v1/evaluations", json=request | {"suite": "demo"}), 422)
        assert "are for its operators" in refused["detail"]
    assert root.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo"}).status_code == 201


def test_nobody_submits_without_signing_in(site: Callable[[], TestClient], model: Path) -> None:
    problem(Browser(site()).post("/api/v1/evaluations", json=asked(model)), 401)


def test_a_series_of_the_same_name_is_each_persons_own_and_a_private_one_nobody_elses(
    sign_in: SignIn, hub: Hub, model: Path
) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    step = {"series": "run", "step": 1}
    made = ada.post("/api/v1/evaluations", json=asked(model, **step))
    assert eve.post("/api/v1/evaluations", json=asked(model, **step | {"step": 2})).json()["existing"] is True
    steps = {
        run["owner"]: [point["step"] for point in run["points"]] for run in eve.get("/api/v1/series/run").json()["runs"]
    }
    assert steps == {1: [1], 2: [2]}
    ada.post("/api/v1/evaluations", json=asked(model, visibility="private", series="hidden", step=5))
    assert ada.get("/series/hidden").status_code == 200
    assert (eve.get("/series/hidden").status_code, eve.get("/api/v1/series/hidden").status_code) == (404, 404)
    assert len(eve.get(f"/api/v1/evaluations/{made.json()['evaluation']['id']}").json()["series"]) == 2
