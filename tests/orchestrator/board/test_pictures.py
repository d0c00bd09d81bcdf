"""Pictures draw lines through every row that fits, and so many of them as points."""

from orchestrator.board import Table
from orchestrator.board.pictures import MOST_POINTS, draw
from tests.orchestrator.board.rows import DEMO, ask, row


def test_the_front_and_the_best_so_far_are_of_all_rows_that_fit() -> None:
    small = row(9000, 1.0, parameters=10**8)
    large = [row(1 + number, 90.0 - number / 100, parameters=10**9 + number) for number in range(MOST_POINTS)]
    shown = ask(Table(DEMO, [small, *large]))
    size, time = draw(shown, "size"), draw(shown, "time")
    assert [point["model"] for point in size["layer"][2]["data"]["values"]] == ["acme/m9000", "acme/m1"]
    assert len(size["layer"][1]["data"]["values"]) == MOST_POINTS
    assert "2,001 models; the first 2,000 in the table are points." in size["title"]["subtitle"]
    assert "2,001 models; the first 2,000 in the table are points." in time["title"]["subtitle"]
    assert "1 model." in draw(ask(Table(DEMO, [small])), "size")["title"]["subtitle"]
