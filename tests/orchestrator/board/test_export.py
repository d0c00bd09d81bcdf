"""Exports hold exactly what is shown, unrounded, and no text in them is a formula."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board import Cell, Flagging, Table
from orchestrator.board.export import as_csv, as_markdown, as_parquet, as_record, as_records
from tests.orchestrator.board.rows import DEMO, ask, row

TABLE = Table(DEMO, [row(1, 70.125, model="acme/a|b", licence="mit"), row(2, 60.0), row(3, 50.0, document_limit=2)])


@given(st.text(max_size=30))
def test_no_text_is_a_formula_in_the_csv(name: str) -> None:
    table = Table(DEMO, [row(1, 50.0, model=name, flags=(Flagging("other", name),))])
    (found,) = csv.DictReader(io.StringIO(as_csv(ask(table, everything=True)), newline=""))
    assert found["model"] in (name, "'" + name)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in found.values())


def test_a_record_is_unrounded_and_plain() -> None:
    record = as_record(ask(TABLE).lines[0])
    assert record["average"] == 70.125
    assert record["benchmarks"]["Letters"] == {"value": 70.125, "raw": None, "stderr": 1.0, "samples": 0}
    assert (record["rank"], record["flags"]) == (1, [])


def test_rows_columns_and_order_are_those_of_the_request() -> None:
    shown = ask(TABLE, "cols=licence&cols=Sums&sort=average&q=m2;b$")
    rows = list(csv.DictReader(io.StringIO(as_csv(shown))))
    assert list(rows[0])[:4] == ["model", "licence", "Sums", "Sums raw"]
    assert [each["model"] for each in rows] == ["acme/m2", "acme/a|b"]
    assert as_markdown(shown).splitlines()[0] == "| model | licence | Sums | evaluation | limit | apart\\_because |"
    assert as_markdown(shown).splitlines()[3].startswith("| acme/a\\|b | mit | 70.12 | 1 |")
    assert [each["model"] for each in as_records(shown)["ranked"]] == ["acme/m2", "acme/a|b"]


def test_markdown_has_the_benchmarks_before_normalisation_where_those_are_shown() -> None:
    cells = {"Letters": Cell(40.0, raw=55.0, stderr=1.0), "Sums n": Cell(1.0)}
    lines = as_markdown(ask(Table(DEMO, [row(1, 40.0, cells=cells)]), "cols=Letters&cols=average&show=raw"))
    assert "| model | Letters raw | average | evaluation | limit | apart\\_because |" in lines.splitlines()
    assert "| acme/m1 | 55.00 | 40.00 | 1 |" in lines


def test_rows_apart_come_last_with_their_reason() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(ask(TABLE, everything=True)))))
    assert [(each["rank"], each["evaluation"], each["apart_because"][:7]) for each in rows] == [
        ("1", "1", ""),
        ("2", "2", ""),
        ("", "3", "A trial"),
    ]


def test_parquet_has_the_columns_of_the_csv_with_types() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    shown = ask(TABLE, everything=True)
    table = parquet.read_table(io.BytesIO(as_parquet(shown)))
    header = next(csv.reader(io.StringIO(as_csv(shown))))
    assert table.column_names == header
    assert table.to_pylist()[0]["average"] == 70.125
    assert str(table.schema.field("date").type) == "timestamp[us, tz=UTC]"
    assert parquet.read_table(io.BytesIO(as_parquet(ask(Table(DEMO), everything=True)))).num_rows == 0
