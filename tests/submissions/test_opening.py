"""Opening a model that a stranger named: whatever the name and the bytes, a sentence or facts, and nothing else."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submissions.faults import HubAway, SubmissionRefused
from submissions.headers import Unreadable, parse_header
from submissions.opening import HUB_NAME, open_model
from submissions.repositories import MOST_FILES
from tests.hub_stub import HubStub
from tests.submissions.models import edit, facts_of


@given(st.binary(max_size=200))
def test_a_hostile_header_is_refused_and_never_raises_anything_else(header: bytes) -> None:
    with contextlib.suppress(Unreadable):
        assert parse_header("x.safetensors", header).tensors >= 0


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**4000] * 5000},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40]},
        {"dtype": "F32", "shape": [-1]},
        {"dtype": "F32", "shape": [2.5]},
        {"dtype": "F32", "shape": ["3"]},
        {"dtype": "x" * 100, "shape": [1]},
        {"dtype": "<b>", "shape": [1]},
        {"dtype": 1, "shape": [1]},
    ],
)
def test_a_header_with_impossible_numbers_is_refused_at_once(tensor: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="damaged safetensors header"):
        parse_header("x.safetensors", json.dumps({"a": tensor}).encode())


def test_words_of_a_config_are_kept_short_and_printable(model: Path) -> None:
    edit(model / "config.json", architectures=["a\x00\x1b[31m" + "b" * 10_000] * 1000)
    found = facts_of(model).architectures
    assert len(found) == 8
    assert all(len(name) <= 80 and name.isprintable() for name in found)


def test_a_folder_that_is_the_whole_machine_is_looked_at_for_a_moment_only(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
        for file in range(1000):
            (tmp_path / f"{number:02}" / f"{file}.bin").touch()
    (tmp_path / "z.bin").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    files = facts_of(tmp_path).files
    assert "z.bin" in files
    assert len(files) <= MOST_FILES + 1000


@pytest.mark.parametrize("name", ["/" + "a" * 900, "/tmp/\x00", "/dev/null", "/nowhere"])
def test_an_impossible_path_is_a_fault_of_the_model(name: str) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        open_model(name)
    assert refused.value.faults[0].field == "model"


def test_a_folder_whose_name_would_write_to_a_terminal_is_refused(model: Path) -> None:
    odd = model.rename(model.with_name("x\x1b]0;y\x07\nz"))
    with pytest.raises(SubmissionRefused, match="cannot be shown") as refused:
        open_model(str(odd))
    assert refused.value.faults[0].sentence.isprintable()


@given(st.text(max_size=120))
def test_an_odd_name_is_refused_with_one_printable_sentence(name: str) -> None:
    if name.strip().startswith("/"):
        return
    if HUB_NAME.fullmatch(name.strip()) and ".." not in name and "--" not in name:
        return
    with pytest.raises(SubmissionRefused) as refused:
        open_model(name)
    (fault,) = refused.value.faults
    assert fault.field == "model"
    assert fault.sentence.isprintable()


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "a/b/c", "org/..", "org/.hidden", "o\x00/x", "x" * 200, "~/m"])
def test_a_name_never_reaches_outside_the_mirror(name: str, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with pytest.raises(SubmissionRefused):
        open_model(name, mirror=mirror)


def test_a_site_that_is_cut_off_says_that_its_mirror_lacks_the_name_and_which_was_meant(
    hf_hub: HubStub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(model, mirror / "Acme" / "tiny-a")
    (mirror / "Acme" / "tiny-aa.txt").touch()
    assert open_model("Acme/tiny-a", mirror=mirror).name == "Acme/tiny-a"
    hf_hub.status = 503
    with pytest.raises(HubAway, match=r"has no model acme/tiny-aa either\. Did you mean Acme/tiny-a\?"):
        open_model("acme/tiny-aa", mirror=mirror)
    with pytest.raises(HubAway, match=r"has no model other/one either\.$"):
        open_model("other/one", mirror=mirror)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SubmissionRefused, match=r"does not ask the Hub \(HF_HUB_OFFLINE\)\. .* mean Acme/tiny-a\?"):
        open_model("acme/tiny-aa", mirror=mirror)
    with pytest.raises(SubmissionRefused, match="It has no mirror either"):
        open_model("acme/tiny-aa")
