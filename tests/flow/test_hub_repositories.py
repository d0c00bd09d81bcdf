"""Every repository of the stub Hub that is accepted, run to its end: with the scripted engine, and some with vLLM.

Slow: `pytest tests/flow/test_hub_repositories.py` takes about ten minutes on two cores.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import db
from orchestrator.lifecycle import EvaluationState
from submissions.cli import main
from submissions.intake import submit
from submissions.request import SubmissionRequest
from tests.fleet import Fleet
from tests.hub_repositories import REPOSITORIES, Made, fill
from tests.hub_stub import HubStub, running_hub, use_instead_of_the_hub
from tests.services import processes_with, valkey
from tests.tiny import build_tiny_model

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStub]:
    """The stub with all repositories, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("hub")
    tiny = build_tiny_model(folder / "tiny", hidden=32, layers=1)
    with running_hub() as stub, pytest.MonkeyPatch.context() as patch:
        cache = folder / "cache"
        use_instead_of_the_hub(stub, patch, cache)
        fill(stub, tiny, folder / "made")
        for name, value in {"HF_ENDPOINT": stub.url, "HF_HUB_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}.items():
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield stub


def take(fleet: Fleet, made: Made) -> int:
    request = SubmissionRequest(model=made.name, suite="short", limit=2, **made.asked)
    with db.session(fleet.engine) as session:
        number = submit(session, fleet.settings, suites=fleet.suites, request=request).evaluation.id
    assert number is not None
    return number


@pytest.mark.timeout(1800)
def test_every_accepted_repository_ends_with_a_score_or_with_a_class_and_nothing_is_left(
    hub: HubStub, tmp_path: Path
) -> None:
    accepted = [made for made in REPOSITORIES if made.is_accepted]
    with valkey(tmp_path / "valkey") as broker:
        fleet = Fleet(tmp_path / "data", f"sqlite:///{tmp_path / 'evalyard.db'}", broker)
        fleet.start("control", "harness", "engine")
        try:
            numbers = {made.name: take(fleet, made) for made in accepted}
            ends = {name: fleet.wait_for(number, seconds=1500) for name, number in numbers.items()}
        finally:
            fleet.stop()
    assert processes_with(str(tmp_path)) == {}
    told = {name: (end.state.value, end.failure, end.sentence) for name, end in ends.items()}
    print(json.dumps(told, indent=1, default=str))
    for made in accepted:
        end = ends[made.name]
        assert end.state.value == made.ends, told[made.name]
        assert (end.failure is not None and bool(end.sentence)) is (end.state is EvaluationState.FAILED)
    assert not [name for name in hub.fetched if name.endswith((".bin", ".py"))]
    assert not [path for path in tmp_path.rglob("*") if "owned" in path.name]


@pytest.mark.vllm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("acme/plain", (), ""),
        ("acme/sharded", (), ""),
        ("acme/chat-file", ("--chat-template",), ""),
        ("acme/adapter", ("--weight-type", "adapter"), ""),
        ("acme/not-numbers", (), "NaN"),
    ],
)
def test_accepted_repositories_run_on_vllm(
    hub: HubStub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", name, "--tasks", "demo_letters", "--limit", "3", "--json", *options])
    out, err = capsys.readouterr()
    if said:
        assert ended.value.code == 1
        assert said in out + err
        return
    assert ended.value.code == 0, err
    assert json.loads(out)["benchmarks"][0]["scores"]
