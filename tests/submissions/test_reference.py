"""The reference is what the code says; every setting and command has its sentence."""

from deploy import reference
from orchestrator.settings import HubSettings


def test_the_reference_in_docs_is_what_the_code_says() -> None:
    assert reference.stale() == [], "Run: python -m deploy.reference"


def test_every_setting_is_explained() -> None:
    rows = [line for line in reference.write_settings().splitlines() if line.startswith("| `EVALYARD_")]
    assert len(rows) > len(HubSettings.model_fields)
    assert [row for row in rows if row.rstrip().endswith("|  |")] == []


def test_the_reference_names_no_path_of_this_machine() -> None:
    text = reference.write_cli() + reference.write_settings()
    assert str(reference.DOCS.parent) not in text
    assert "/root" not in text
