"""What tests of submitted models share: reading a folder as intake does, spoiling it, and the faults that are found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from orchestrator.wire import FailureKind
from submissions.case import Case
from submissions.facts import ModelFacts, read_facts
from submissions.findings import find_faults
from submissions.opening import open_model


def facts_of(folder: Path) -> ModelFacts:
    return read_facts(open_model(str(folder)))


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def faults(folder: Path, **case: Any) -> list[tuple[str, FailureKind | None]]:
    return [(fault.field, fault.kind) for fault in find_faults(Case(model=facts_of(folder), **case))]


def make_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4} | config))
    save_file({"lora_A": np.zeros((4, 32), dtype=np.float32)}, folder / "adapter_model.safetensors")
    return folder
