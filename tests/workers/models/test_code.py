"""A model's own code stays unread even where a library forgets to ask whether it may run it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from orchestrator.wire import FailureKind
from workers.models import code as model_code
from workers.stage import StageFailure

heard = []
model_code.forbid(heard.append)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.generation.utils import get_cached_module_file

for load in (lambda: get_class_from_dynamic_module("own.Model", sys.argv[1], trust_remote_code=True),
             lambda: get_cached_module_file(sys.argv[1], module_file="own.py")):
    try:
        load()
    except StageFailure as failure:
        assert failure.kind is FailureKind.REMOTE_CODE
        assert "never run here" in failure.sentence
    else:
        raise SystemExit("it was loaded")
assert len(heard) == 2
"""


def test_code_beside_the_weights_is_refused_whoever_asks_and_with_whatever_options(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('this ran')\nclass Model: pass\n")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
