"""Progress of `evaluate` where nobody watches a terminal."""

import pytest

from orchestrator import narrator
from submissions.local.report import Meter
from workers.local import pipeline


def test_a_log_gets_a_line_at_the_beginning_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter() as meter:
        for done in (0, 1, 2, 3, 3):
            meter("infer", "answering", done, 3)
        meter("score", "ARC", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "infer   answering  0 of 3 requests",
        "infer   answering  3 of 3 requests",
        "score   ARC",
    ]


def test_json_output_is_not_disturbed(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(quiet=True) as meter:
        meter("infer", "answering", 1, 3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_phase_that_tells_nothing_is_told_again_with_its_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Meter() as meter:
        meter("prepare", "ARC", 1, 1)
        meter("infer", "loading weights", 0, 0)
        monkeypatch.setattr(narrator, "SILENCE_SECONDS", 0.0)
        meter._say()
    assert "infer   loading weights (0 s)" in capsys.readouterr().err.splitlines()


def test_what_failed_is_not_told_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Meter() as meter:
        meter("prepare", "ARC", 0, 0)
        meter("prepare", "ARC", pipeline.FAILED, 0)
        monkeypatch.setattr(narrator, "SILENCE_SECONDS", 0.0)
        meter._say()
    assert capsys.readouterr().err.splitlines() == ["prepare ARC", "prepare ARC  failed"]
