"""The order in which an engine is fed: a sample of every benchmark before the long run, and nothing twice."""

from pathlib import Path

from tests.workers.engine.factories import generate, infer_work, letter_choice, write_sheet
from workers.engine.ledger import Ledger
from workers.engine.selection import request_ids
from workers.engine.turns import turns
from workers.sheets import Request


def fed(sheets: dict[str, Path], *, answered: tuple[str, ...] = ()) -> list[Request]:
    ledger = Ledger(list(sheets))
    for position, sheet in enumerate(sheets.values()):
        ledger.ask(position, request_ids(sheet))
    ledger.seal(answered)
    crowd, _ = turns(infer_work(sheets), sheets, ledger, lambda: False)
    return [request for group in crowd for request in group]


def test_a_sample_of_every_benchmark_is_fed_before_the_long_run(tmp_path: Path) -> None:
    letters = [request for document in range(5) for request in letter_choice(document)]
    texts: list[Request] = [generate([number] * 10) for number in range(4)]
    sheets = {"A": write_sheet(tmp_path / "a", letters), "B": write_sheet(tmp_path / "b", texts)}
    assert fed(sheets) == [*letters[:4], texts[0], *letters[4:], *texts[1:]]


def test_a_model_that_has_answered_already_is_not_tried_again(tmp_path: Path) -> None:
    letters = [request for document in range(3) for request in letter_choice(document)]
    texts: list[Request] = [generate([number] * 10) for number in range(2)]
    sheets = {"A": write_sheet(tmp_path / "a", letters), "B": write_sheet(tmp_path / "b", texts)}
    assert fed(sheets, answered=(letters[0].id,)) == [*letters[1:], *texts]
