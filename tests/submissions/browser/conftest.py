"""One site for all tests that only read it; a page on a desk and on a phone, with JavaScript and without.

What each test saw last is kept in `artifacts/pages/`, and a console that says anything is a fault.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from orchestrator import series
from orchestrator.flags import flag
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.suite_versions import add_version
from orchestrator.tables import Outcome, Rerun
from orchestrator.tables.flags import FlagKind
from orchestrator.wire import FailureKind
from submissions.context import Hub
from tests.submissions.browser.looking import SIZES, keep, listen
from tests.submissions.conftest import serving
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples, make_hub

LONG = "acme-research/an-extraordinarily-long-model-name-that-goes-on-for-a-while-v2.1"


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A board, a failure, something that waits, workers, samples, and rows to choose from."""
    hub = make_hub(tmp_path_factory.mktemp("browser") / "data")
    suite, demo = hub.suites["open-llm-v2"], hub.suites["demo"]
    values = {benchmark.name: 41.5 for benchmark in suite.benchmarks}
    with hub.writing() as session:
        add_evaluation(session, suite, model=LONG, values=values, chat_template=True)
        failed = {"failure": FailureKind.ENGINE, "sentence": "The engine stopped. " * 9, "log_tail": "x" * 400}
        add_evaluation(session, suite, model="acme/failed", state=EvaluationState.FAILED, **failed)
        add_evaluation(session, suite, model="acme/waits", state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, suite, model="acme/trial", values=values, limit=3)
        add_evaluation(session, demo, model="acme/chat-a", values=DEMO, model_type="chat")
        add_evaluation(session, demo, model="acme/chat-b", values={**DEMO, "Sums": 70.0}, model_type="chat")
        add_evaluation(session, demo, model="acme/base", values={**DEMO, "Sums": 10.0}, parameters=7 * 10**9)
        add_evaluation(session, demo, model="acme/chat-a", values={**DEMO, "Sums": 20.0}, revision="b" * 40)
        for evaluation, bits in ((5, "VQU="), (6, "qgo=")):  # each every second document, of 12
            strata = [{"documents": "d", "count": 12, "weight": 100.0, "bits": bits}]
            session.add(Outcome(evaluation_id=evaluation, benchmark="Letters", strata=strata))
        add_worker(session, "engine-1", kind="engine", now=NOON, device="NVIDIA H100 80GB HBM3")
        reason = "It has seen the questions of Sums."
        flag(session, "acme/base", kind=FlagKind.CONTAMINATION, reason=reason, link="https://example.org/7", now=NOON)
        for evaluation, step in ((8, 100), (5, 200)):
            series.add(session, evaluation, owner=0, name="run-7", step=step, now=NOON)
        add_version(session, demo.model_copy(update={"version": "2", "harness": "lm_eval 0.5"}), now=NOON)
        facts = {"suite": "demo", "from_version": demo.version, "to_version": "2", "state": RerunState.READY}
        session.add(Rerun(**facts, made_at=NOON))
    keep_samples(hub, 1, "IFEval", task="leaderboard_ifeval", records=[choice_sample(0) | {"target": "y" * 300}])
    for evaluation, parity in ((5, 0), (6, 1)):
        records = [choice_sample(number, right=number % 2 == parity) for number in range(12)]
        keep_samples(hub, evaluation, "Letters", task="demo_letters", records=records)
    return hub


@pytest.fixture(scope="package")
def site(shared: Hub) -> Iterator[str]:
    """Its URL."""
    with serving(shared) as url:
        yield url


@pytest.fixture
def errors() -> list[str]:
    """What the browser's console said and no test took away; there must be nothing."""
    return []


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Browser, errors: list[str]) -> Iterator[Page]:
    """On a desk and on a phone."""
    context = browser.new_context(viewport=SIZES[request.param])
    made = context.new_page()
    listen(made, errors)
    yield made
    keep(made, f"{request.function.__name__.removeprefix('test_')}-{request.param}")
    context.close()
    assert errors == []


@pytest.fixture(params=SIZES)
def plain(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """Without JavaScript."""
    context = browser.new_context(viewport=SIZES[request.param], java_script_enabled=False)
    made = context.new_page()
    yield made
    keep(made, f"{request.function.__name__.removeprefix('test_')}-{request.param}")
    context.close()
