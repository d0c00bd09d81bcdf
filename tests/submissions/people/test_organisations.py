"""The week's limit on one organisation's models, whoever asks and however they spell it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session
from starlette.testclient import TestClient

from orchestrator import db
from orchestrator.people import Role
from orchestrator.settings import HubSettings
from orchestrator.tables import Submission
from orchestrator.wire import Precision
from submissions.context import Hub
from submissions.people.organisations import check_organisation
from submissions.people.refusals import TooMany
from submissions.people.viewer import Viewer
from submissions.site import make_site
from tests.hub_stub import HubStub
from tests.submissions.conftest import problem
from tests.submissions.people.browser import SITE, Browser
from tests.submissions.people.conftest import SignIn

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
SETTINGS = HubSettings(organisation_submissions_per_week=2, official_providers="Good")
ADA = Viewer(person=7, role=Role.SUBMITTER)


def add(session: Session, organisation: str, *, days: float) -> None:
    at = NOW - timedelta(days=days)
    session.add(
        Submission(
            model=f"{organisation}/m",
            revision="r",
            precision=Precision.FLOAT32,
            organisation=organisation,
            submitted_at=at,
        )
    )
    session.flush()


def test_more_than_the_limit_in_seven_days_is_refused_until_the_first_of_them_is_older(engine: Engine) -> None:
    with db.session(engine) as session:
        for days in (8, 5, 0):
            add(session, "acme", days=days)
        check_organisation(session, SETTINGS, viewer=ADA, organisation="acme", now=NOW)
        add(session, "acme", days=0)
        with pytest.raises(TooMany, match="2 new evaluations of acme's models") as refused:
            check_organisation(session, SETTINGS, viewer=ADA, organisation="acme", now=NOW)
        assert refused.value.retry_after == timedelta(days=2).total_seconds()
        check_organisation(session, SETTINGS, viewer=ADA, organisation="other", now=NOW)
        check_organisation(session, SETTINGS, viewer=Viewer(role=Role.OPERATOR), organisation="acme", now=NOW)


def test_official_providers_are_not_limited(engine: Engine) -> None:
    with db.session(engine) as session:
        for _ in range(4):
            add(session, "good", days=0)
        check_organisation(session, SETTINGS, viewer=ADA, organisation="good", now=NOW)


def test_neither_upper_case_nor_an_old_name_of_a_repository_is_another_organisation(
    sign_in: SignIn, hub: Hub, hf_hub: HubStub, model: Path
) -> None:
    rules = {"organisation_submissions_per_week": 2, "card_characters": 0, "need_licence": False}
    app = make_site(replace(hub, settings=hub.settings.model_copy(update=rules)))
    for name in ("acme/one", "ACME/two", "acme/three", "other/four"):
        hf_hub.add(name, model)
    hf_hub.renamed["elsewhere/three"] = "acme/three"
    for person, name, status in (
        ("ada", "acme/one", 201),
        ("eve", "ACME/two", 201),
        ("ada", "elsewhere/three", 429),
        ("eve", "acme/three", 429),
        ("eve", "other/four", 201),
    ):
        browser = Browser(TestClient(app, base_url=SITE, follow_redirects=False))
        browser.take(sign_in(person).cookies)
        answer = browser.post("/api/v1/evaluations", json={"model": name, "suite": "demo"})
        assert answer.status_code == status, (name, answer.text)
        if status == 429:
            assert "2 new evaluations of acme's models within seven days" in problem(answer, 429)["detail"]
