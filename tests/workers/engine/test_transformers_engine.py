"""What the reference engine refuses before it loads anything."""

from pathlib import Path

import pytest

from orchestrator.wire import EngineFamily, FailureKind
from tests.tiny import build_tiny_model
from tests.workers.engine.factories import infer_work
from workers.engine.transformers import TransformersEngine
from workers.stage import StageFailure


def test_an_adapter_beside_the_weights_is_refused_as_peft_would_apply_it(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/other"}')
    work = infer_work({}, engine=EngineFamily.TRANSFORMERS, model_folder=str(model))
    with pytest.raises(StageFailure, match=r"Remove adapter_config\.json") as refused:
        TransformersEngine(work).start()
    assert refused.value.kind is FailureKind.WEIGHTS
