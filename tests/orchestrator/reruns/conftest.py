from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchestrator.artifacts import ArtifactStore
from tests.orchestrator.reruns.works import Works
from tests.orchestrator.yard import Yard


@pytest.fixture
def works(engine: Engine, tmp_path: Path) -> Works:
    return Works(Yard(engine), ArtifactStore((tmp_path / "artifacts").as_uri()))
