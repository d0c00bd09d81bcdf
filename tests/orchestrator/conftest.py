import pytest
from sqlalchemy import Engine

from tests.orchestrator.yard import Yard


@pytest.fixture
def yard(engine: Engine) -> Yard:
    return Yard(engine)
