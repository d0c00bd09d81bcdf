"""Models of the Hub in a whole Evalyard: weights are there before they are needed, and nothing is answered twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Worker
from tests.fleet import Fleet
from tests.hub_stub import HubStub, running_hub, sha_of, use_instead_of_the_hub
from tests.services import processes_with, valkey, wait_until

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStub]:
    """A Hub for this process and for those that it starts."""
    with running_hub() as stub, pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("hf")
        use_instead_of_the_hub(stub, patch, cache)
        for name, value in {"HF_ENDPOINT": stub.url, "HF_HUB_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}.items():
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield stub


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, hub: HubStub) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with valkey(folder / "valkey") as broker:
        made = Fleet(folder / "data", f"sqlite:///{folder / 'evalyard.db'}", broker)
        made.start("control", "harness", "engine")
        try:
            yield made
        finally:
            made.stop()
    assert processes_with(str(folder)) == {}


def test_the_next_models_weights_are_fetched_while_the_engine_computes_another(
    yard: Fleet, hub: HubStub, models: dict[str, Path]
):
    hub.add("org/one", models["one"])
    hub.add("org/two", models["two"])
    first = yard.submit("org/one")
    yard.wait_for_middle(first)
    second = yard.submit("org/two", limit=3)
    wait_until(
        lambda: sha_of("org/two") in (yard.rows(select(Worker.weights).where(Worker.name == "engine-1"))[0] or ()),
        "the engine worker says that it has the second model's weights",
        seconds=90,
    )
    assert yard.infer_job(first).state is JobState.RUNNING
    assert yard.infer_outcomes(second) == []
    assert "fetched ahead: org/two" in yard.log()

    yard.cancel(first)
    assert yard.wait_for(second).state is EvaluationState.FINISHED
    assert yard.infer_outcomes(second) == ["completed"]
    for name in ("org/one", "org/two"):
        assert hub.fetched.count(f"{name}/model.safetensors") == 1


def test_two_suites_that_share_a_benchmark_compute_it_once(yard: Fleet, hub: HubStub, models: dict[str, Path]):
    hub.add("org/two", models["two"])
    one = yard.submit("org/two", limit=3)
    yard.wait_for(one)
    before = yard.computed(one)
    two = yard.submit("org/two", limit=3, suite="sharing")
    assert yard.wait_for(two).state is EvaluationState.FINISHED
    after = yard.computed(two)
    assert max(after.values()) == 1
    inferred = yard.infer_job(two).result
    assert inferred["computed"] == len(after) - len(before) > 0
    letters = 3 * 4
    assert inferred["reused"] == letters
    assert (yard.scores(two)["Choice", "", "raw", ""]) == yard.scores(one)["Letters", "", "raw", ""]
