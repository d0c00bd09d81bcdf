"""A Hub of good, odd and hostile repositories: what is refused says why, and nothing hostile leaves a trace."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from orchestrator.people import Role
from orchestrator.settings import HubSettings
from orchestrator.suites import load_suites
from orchestrator.tables import EngineVersion, Worker
from orchestrator.wire import EngineFamily
from submissions.examining import Examination, look_over
from submissions.fleet import Fleet, Machine, read_fleet
from submissions.people.private_models import may_read
from submissions.people.viewer import Viewer
from submissions.request import SubmissionRequest
from tests.hub_repositories import MARKUP, REPOSITORIES, Made, fill
from tests.hub_stub import HubStub, running_hub, use_instead_of_the_hub
from tests.submissions.factories import NOON, add_worker, make_hub

SUITES = load_suites()
FLEET = Fleet(
    machines=(Machine("cuda", 1, 80 << 30),),
    engine="vLLM 0.32.0",
    architectures=frozenset({"LlamaForCausalLM", "MixtralForCausalLM", "LlavaForConditionalGeneration"}),
    dropped={"MPTForCausalLM": "0.28.0"},
    quantisations=frozenset({"gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes"}),
)
STRANGER = Viewer(person=7, name="ada", role=Role.SUBMITTER, teams=frozenset({"research"}))


@pytest.fixture(scope="module")
def hub(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStub]:
    folder = tmp_path_factory.mktemp("repositories")
    with running_hub() as stub, pytest.MonkeyPatch.context() as patch:
        use_instead_of_the_hub(stub, patch, folder / "cache")
        fill(stub, tiny_model, folder / "made")
        yield stub
    shutil.rmtree(folder)


@pytest.fixture
def settings(tmp_path: Path) -> HubSettings:
    return HubSettings(data=tmp_path / "data", card_characters=200, need_licence=True, denied_models="acme/denied")


def look(settings: HubSettings, name: str, *, viewer: Viewer = STRANGER, **asked: Any) -> Examination:
    request = SubmissionRequest(**({"model": name, "suite": "demo"} | asked))
    return look_over(settings, SUITES, request=request, fleet=FLEET, may_read=may_read(viewer, settings))


@pytest.mark.parametrize("made", REPOSITORIES, ids=lambda made: made.name)
def test_each_repository_is_accepted_or_refused_with_class_and_sentence(
    made: Made, hub: HubStub, settings: HubSettings
) -> None:
    found = look(settings, made.name, **made.asked)
    if made.is_accepted:
        assert found.faults == []
        assert found.accepted is not None
        return
    assert found.accepted is None
    faults = [(fault.field, fault.kind) for fault in found.faults]
    assert (made.field, made.kind) in faults, found.faults
    assert made.words in " ".join(fault.sentence for fault in found.faults)
    assert all(fault.sentence.isprintable() for fault in found.faults)


def test_there_are_enough_repositories_and_no_pickle_or_python_is_ever_fetched(hub: HubStub) -> None:
    assert len(REPOSITORIES) >= 30
    assert not [name for name in hub.fetched if name.endswith((".bin", ".py", ".safetensors"))]
    assert not list(Path().glob("owned*"))


def test_what_a_mixture_holds_and_what_it_uses_are_told_apart(hub: HubStub, settings: HubSettings) -> None:
    said = {found.check: found.sentence for found in look(settings, "acme/mixture").findings}
    assert " active" in said["size"]
    assert "active" not in {found.check: found.sentence for found in look(settings, "acme/plain").findings}["size"]


def test_a_private_repository_is_there_for_operators_and_for_the_teams_that_a_setting_names(
    hub: HubStub, settings: HubSettings
) -> None:
    assert look(settings, "acme/private", viewer=replace(STRANGER, role=Role.OPERATOR)).faults == []
    lent = settings.model_copy(update={"private_models": "ACME=Research, other=all"})
    assert look(lent, "acme/private").faults == []
    folded = settings.model_copy(update={"private_models": "acme=strasse"})
    assert look(folded, "acme/private", viewer=replace(STRANGER, teams=frozenset({"straße"}))).faults != []
    (refused,) = look(settings, "acme/private", revision="v9").faults
    assert (refused.field, "There is no model acme/private" in refused.sentence) == ("model", True)


@pytest.mark.parametrize(
    ("denied", "name", "weight_type", "is_denied"),
    [
        ("acme/old-plain", "acme/old-plain", "original", True),
        ("Acme/Plain", "acme/old-plain", "original", True),
        ("acme/plain", "acme/adapter-on-old-name", "adapter", True),
        ("acme/old-plain", "acme/adapter-on-old-name", "adapter", True),
        ("acme/plain-2", "acme/plain", "original", False),
    ],
)
def test_a_denied_model_is_denied_by_its_old_name_and_below_an_adapter(
    hub: HubStub, settings: HubSettings, denied: str, name: str, weight_type: str, is_denied: bool
) -> None:
    denying = settings.model_copy(update={"denied_models": denied})
    said = [fault.sentence for fault in look(denying, name, weight_type=weight_type).faults]
    assert len(said) == is_denied, said
    assert all("is not evaluated here" in one and "ask the operators" in one for one in said)


def test_markup_in_a_repository_reaches_no_page_unescaped(tmp_path: Path, hub: HubStub) -> None:
    from starlette.testclient import TestClient

    from submissions.site import make_site

    site = make_hub(tmp_path / "site")
    with TestClient(make_site(site), base_url="http://127.0.0.1:8765") as client:
        for name in ("acme/odd-paths", "acme/markup-in-config"):
            sent = client.post("/submit", data={"model": name, "suite": "demo"}, follow_redirects=True)
            checked = client.post("/submit/check", data={"model": name, "suite": "demo"})
            assert sent.status_code == checked.status_code == 200
            assert MARKUP not in sent.text + checked.text + client.get("/queue").text


def test_no_repository_leaves_a_file_refused_or_not(hub: HubStub, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    for name in ("acme/index-outside", "acme/plain"):
        look(HubSettings(data=tmp_path / "data"), name)
    assert set(tmp_path.iterdir()) == before
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_what_engines_know_is_read_from_the_workers_that_are_here(tmp_path: Path) -> None:
    site = make_hub(tmp_path / "data", engine=EngineFamily.VLLM)
    with site.writing() as session:
        assert read_fleet(session, site.settings).architectures is None
        facts: dict[str, Any] = {
            "kind": "engine",
            "engine_family": EngineFamily.VLLM,
            "device_type": "cpu",
            "now": NOON,
        }
        add_worker(session, "engine-1", engine_version="0.32.0", **facts)
        session.add(EngineVersion(engine=EngineFamily.VLLM, version="0.32.0", architectures=["A"], told_at=NOON))
        session.flush()
        assert read_fleet(session, site.settings).architectures == frozenset({"A"})
        add_worker(session, "engine-2", engine_version="0.33.0", **facts)
        session.flush()
        assert read_fleet(session, site.settings).architectures is None, "one of them did not say"
        assert session.get(Worker, "engine-2") is not None
