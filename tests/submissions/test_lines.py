"""Rows of a board are written by hand, so what a stranger wrote must come out as text wherever it stands."""

from html.parser import HTMLParser

from orchestrator.board import Cell, Flagging, Table, columns_of
from orchestrator.people import Visibility
from submissions.pages.lines import Lines
from tests.orchestrator.board.rows import DEMO, ask, row

EVIL = "a/<script>x</script>\"'&amp;<b onclick=x>"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_strangers_wrote_is_text_in_every_cell_of_a_row() -> None:
    said = dict.fromkeys(
        ("model", "revision", "precision", "engine", "model_type", "base_model", "architecture", "licence"), EVIL
    )
    said |= {"weight_type": "adapter", "team": EVIL, "imported_from": EVIL}
    cells = {name: Cell(50.0, 40.0, 1.0, 9) for name in ("Letters", "Stories", "Sums")}
    flags = (Flagging(EVIL, EVIL, EVIL),)
    table = Table(DEMO, [row(1, 50.0, cells=cells, flags=flags, visibility=Visibility.TEAM, on_hub=False, **said)])
    shown = ask(table, "&".join(f"cols={key}" for key in columns_of(DEMO)))
    lines = Lines(shown, ago=lambda at: EVIL, pin_link=lambda evaluation: f"/?q={EVIL}")
    reader = _Reader()
    reader.feed(str(lines.rows(shown.lines)))
    reader.close()
    assert reader.text.count(EVIL) >= len(said) - 2
    assert reader.tags <= {"tr", "th", "td", "span", "a", "strong", "small", "code", "svg", "rect", "time"}
    assert "onclick" not in reader.attributes


def test_a_rows_places_are_left_out_where_ranks_are_its_own() -> None:
    table = Table(DEMO, [row(1, 50.0), row(2, 50.1)])
    for query, told in (("", True), ("rank=dynamic", False)):
        shown = ask(table, query)
        assert ("1–2" in Lines(shown, ago=str).rows(shown.lines)) is told
