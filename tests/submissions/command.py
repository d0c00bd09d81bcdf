"""The command in this process: what it prints, how it ends, and that no traceback is ever seen."""

import json
from typing import Any, NamedTuple

import pytest

from submissions.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """Runs `evalyard …` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)
