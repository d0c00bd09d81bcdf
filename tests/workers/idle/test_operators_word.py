"""What an operator wants is asked for aside, and kept."""

from orchestrator.wire import Mode
from workers.idle.operators_word import OperatorsWord


def test_the_last_word_stays_while_there_is_no_news() -> None:
    answers = [None, Mode.PAUSED, None, Mode.OPEN]
    word = OperatorsWord(lambda: answers.pop(0), pause_seconds=1.0)
    said = [word.last()]
    for _ in range(4):
        word.step()
        said.append(word.last())
    assert said == [None, None, Mode.PAUSED, Mode.PAUSED, Mode.OPEN]
