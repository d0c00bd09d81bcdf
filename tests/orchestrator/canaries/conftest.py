from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchestrator.artifacts import ArtifactStore
from tests.orchestrator.canaries.cage import Cage
from tests.orchestrator.yard import Yard


@pytest.fixture
def cage(engine: Engine, tmp_path: Path) -> Cage:
    return Cage(Yard(engine), ArtifactStore((tmp_path / "artifacts").as_uri()))
