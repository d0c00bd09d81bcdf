"""Progress of `evaluate` where nobody watches a terminal."""

import pytest

from submissions.local.report import Meter


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
