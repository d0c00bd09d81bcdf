"""One site for all tests that only read it; a page on a desk and on a phone, with JavaScript and without.

What each test saw last is kept in `artifacts/pages/`, and a console that says anything is a fault.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from orchestrator import series
from orchestrator.flags import flag
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.suite_versions import add_version
from orchestrator.tables import Outcome, Rerun
from orchestrator.tables.flags import FlagKind
from orchestrator.wire import FailureKind, Precision
from submissions.context import Hub
from tests.submissions.browser.looking import SIZES, Reader, keep, listen
from tests.submissions.conftest import serving
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples, make_hub

LONG = "acme-research/an-extraordinarily-long-model-name-that-goes-on-for-a-while-v2.1"


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A board, a failure, something that waits, workers, samples, and rows to choose from."""
    hub = make_hub(tmp_path_factory.mktemp("browser") / "data", official_providers="acme")
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
        add_evaluation(
            session, demo, model="acme/chat-a", values={**DEMO, "Sums": 20.0}, revision="b" * 40, chat_template=True
        )
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
    add_kinds(hub)
    keep_samples(hub, 1, "IFEval", task="leaderboard_ifeval", records=[choice_sample(0) | {"target": "y" * 300}])
    for evaluation, parity in ((5, 0), (6, 1)):
        records = [choice_sample(number, right=number % 2 == parity) for number in range(12)]
        keep_samples(hub, evaluation, "Letters", task="demo_letters", records=records)
    records = [choice_sample(number, right=number < 4) for number in range(12)]
    for record in records:
        record["arguments"]["gen_args_0"]["arg_0"] = (
            f"<|user|>{record['arguments']['gen_args_0']['arg_0']}<|assistant|>"
        )
    keep_samples(hub, 8, "Letters", task="demo_letters", records=records)
    return hub


def add_kinds(hub: Hub) -> None:
    """A row of every kind that a filter knows; ranked as listed, but by ARC alone the first is the last."""
    suite = hub.suites["open-llm-v1"]
    with hub.writing() as session:

        def add(model: str, average: float, *, billions: float = 7, arc: float | None = None, **facts: Any) -> None:
            values = {benchmark.name: average for benchmark in suite.benchmarks} | {"ARC": arc or average}
            add_evaluation(session, suite, model=model, values=values, parameters=int(billions * 1e9), **facts)

        add("zen/moe-8x7b", 75, arc=15, billions=47, facts={"active_parameters": 13 * 10**9})
        add("zen/merged-7b", 60, model_type="merge")
        add("acme/alpha-13b", 58, billions=13, precision=Precision.FLOAT16, model_type="fine-tuned")
        add("acme/alpha-7b", 56, model_type="chat", licence="mit", chat_template=True)
        add("zen/delta-1b", 30, billions=1, precision=Precision.FLOAT16, licence="mit", base_model="zen/base")
        add("tiny", 20, billions=0.5, folder="/srv/models/tiny")


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


@pytest.fixture(params=["desk", "phone", "phone-without-javascript"])
def reader(request: pytest.FixtureRequest, browser: Browser, site: str, errors: list[str]) -> Iterator[Reader]:
    """Somebody who reads the shared site, and can do the same with JavaScript and without."""
    size, _, without = request.param.partition("-")
    context = browser.new_context(viewport=SIZES[size], java_script_enabled=not without)
    made = Reader(context.new_page(), site, has_scripts=not without, is_phone=size == "phone")
    listen(made.page, errors)
    yield made
    keep(made.page, f"{request.function.__name__.removeprefix('test_')}-{request.param}")
    context.close()
    assert errors == []
