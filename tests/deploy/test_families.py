"""The table of well-known families says what the checks say."""

import pytest

from deploy import families
from workers.engine.info import EngineMissing


def test_the_table_of_families_is_what_the_checks_say_with_the_vllm_that_is_installed() -> None:
    try:
        fleet = families.installed()
    except EngineMissing as error:
        pytest.skip(f"THE TABLE OF FAMILIES IS NOT COMPARED: {error}")
    kept = families.FILE.read_text(encoding="utf-8")
    if f"with {fleet.engine} on" not in kept:
        pytest.skip(f"THE TABLE OF FAMILIES IS NOT COMPARED: it is not of {fleet.engine}. python -m deploy.families")
    assert families.write(fleet) == kept
