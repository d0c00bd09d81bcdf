"""What a worker does with a submitter's own Hub token: it fetches that model, and nothing else ever sees it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.envelopes import Opener, seal
from orchestrator.wire import FailureKind, Model, Order
from tests.hub_stub import HubStub, running_hub, use_instead_of_the_hub
from tests.tiny import build_tiny_model
from tests.workers.bench import Bench
from tests.workers.downloads import Host, model
from workers.models.weights import LocalModel, ModelUnavailable, Weights
from workers.redaction import HIDDEN
from workers.supervisor import Supervisor

NAME = "org/gated"
TOKEN = "own-" + "s3cret" * 6


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    """A gated model, which this token reads."""
    with running_hub() as stub:
        use_instead_of_the_hub(stub, monkeypatch, tmp_path / "users-own")
        stub.add(NAME, build_tiny_model(tmp_path / "repository"))
        stub.gated.add(NAME)
        stub.readers[TOKEN] = {NAME}
        yield stub


def lent_order(bench: Bench, supervisor: Supervisor, attempt: str, *, token: str = TOKEN) -> Order:
    lent = seal(token, supervisor.opener.address, attempt)
    return bench.order(attempt, model=model(NAME), lent=lent)


def supervisor_of(bench: Bench, host: Host) -> Supervisor:
    return Supervisor(bench.settings, hub=bench.hub, store=bench.store, weights=host.weights)


def files_below(*folders: Path) -> str:
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return " ".join(path.read_bytes().decode("latin-1") for path in found)


def test_a_gated_model_is_fetched_with_the_submitters_token_which_is_left_nowhere(
    bench: Bench, hub: HubStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = supervisor_of(bench, Host(tmp_path, limit=10**9))

    supervisor.run(lent_order(bench, supervisor, "a1"))

    assert bench.hub.events == ["started", "completed"], bench.hub.updates[-1].sentence
    assert {token for _, token in hub.shown_tokens} == {TOKEN}
    assert f"{NAME}/model.safetensors" in hub.fetched
    said = " ".join(update.model_dump_json() for update in bench.hub.updates)
    assert TOKEN not in said + caplog.text + files_below(tmp_path, bench.scratch)


class Talkative(Weights):
    """Fails in a way that nobody expected, and quotes what it was given."""

    def resolve(
        self, model: Model, *, weights: bool, attempt: str | None = None, ahead: bool = False, lent: str | None = None
    ) -> LocalModel:
        raise LookupError(f"no header {lent!r} for {model.name}")


def test_an_error_that_quotes_a_lent_token_is_told_and_logged_without_it(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = Talkative(mirror=None, token=None, digests=tmp_path / "digests.json")
    supervisor = Supervisor(bench.settings, hub=bench.hub, store=bench.store, weights=weights)

    supervisor.run(lent_order(bench, supervisor, "a1"))

    assert bench.hub.events == ["started", "failed"]
    assert bench.hub.updates[-1].sentence.endswith(f"LookupError: no header '{HIDDEN}' for {NAME}")
    assert "Traceback" in caplog.text
    assert HIDDEN in caplog.text
    assert TOKEN not in caplog.text


def test_a_token_that_reads_no_more_fails_with_its_class_though_the_weights_are_here(
    bench: Bench, hub: HubStub, tmp_path: Path
) -> None:
    host = Host(tmp_path, limit=10**9)
    supervisor = supervisor_of(bench, host)
    supervisor.run(lent_order(bench, supervisor, "a1"))
    assert host.kept() == {NAME}
    hub.readers[TOKEN].clear()

    supervisor.run(lent_order(bench, supervisor, "a2"))
    supervisor.run(lent_order(bench, supervisor, "a3", token="revoked-and-forgotten"))

    ended = [update for update in bench.hub.updates if update.event == "failed"]
    assert [update.failure for update in ended] == [FailureKind.GATED] * 2
    assert all("save another at /account and retry" in update.sentence for update in ended)


def test_what_the_hosts_own_token_may_read_takes_no_lent_one(bench: Bench, hub: HubStub, tmp_path: Path) -> None:
    hub.gated.clear()
    supervisor = supervisor_of(bench, Host(tmp_path, limit=10**9))

    supervisor.run(lent_order(bench, supervisor, "a1"))

    assert bench.hub.events == ["started", "completed"]
    assert hub.shown_tokens == []


def test_a_hub_in_trouble_stops_nothing_that_is_here_already(bench: Bench, hub: HubStub, tmp_path: Path) -> None:
    supervisor = supervisor_of(bench, Host(tmp_path, limit=10**9))
    supervisor.run(lent_order(bench, supervisor, "a1"))
    hub.status = 503

    supervisor.run(lent_order(bench, supervisor, "a2"))

    assert bench.hub.events == ["started", "completed"] * 2


def test_an_order_that_was_sealed_for_the_process_before_is_given_back(bench: Bench, hub: HubStub) -> None:
    order = bench.order("a1", model=model(NAME), lent=seal(TOKEN, Opener().address, "a1"))

    bench.supervisor.run(order)

    assert bench.hub.events == ["started", "released"]
    assert "before it was started again" in bench.hub.updates[-1].sentence
    assert hub.requests == []


def test_without_a_lent_token_a_gated_model_is_refused_with_the_next_step(hub: HubStub, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as refused:
        Host(tmp_path).fetch(NAME)
    assert refused.value.kind is FailureKind.GATED
    assert "/account" in refused.value.sentence
