"""A full disk, as the file-size limit of a process makes one: the attempt fails as storage, and is tried again."""

import sys
from pathlib import Path

from orchestrator.lifecycle import TRANSIENT
from orchestrator.wire import FailureKind
from tests.workers.engine.factories import infer_work, letter_choice, write_sheet
from workers import child


def test_a_full_disk_fails_the_stage_as_storage_with_the_next_step(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -f 8\nexec {sys.executable} -B "$@"\n')
    python.chmod(0o755)
    requests = [request for document in range(800) for request in letter_choice(document)]
    work = infer_work({"A": write_sheet(tmp_path / "sheet", requests)})
    outcome = child.start(work, tmp_path / "out", log=tmp_path / "log", python=str(python)).outcome()
    assert outcome.failure is FailureKind.STORAGE, outcome.log_tail
    assert outcome.failure in TRANSIENT
    assert outcome.sentence.startswith("The worker's disk, or the artifact store mounted there, failed")
    assert "Make room or mend it" in outcome.sentence
