"""Rows of a board for tests: only what matters given."""

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.board import BoardRequest, Cell, Shown, Standing, Table, arrange
from orchestrator.suites import load_suites

DEMO = load_suites()["demo"]
WHOLE = {"Letters": 80.0, "Stories": 60.0, "Sums": 40.0}
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def row(number: int, average: float | None, **facts: Any) -> Standing:
    cells = {name: Cell(average or 0.0, stderr=1.0) for name in WHOLE}
    given: dict[str, Any] = {
        "evaluation": number,
        "model": f"acme/m{number}",
        "revision": "0" * 40,
        "suite": "demo",
        "suite_version": DEMO.version,
        "precision": "bfloat16",
        "engine": "vllm",
        "average": average,
        "cells": cells,
        "ended_at": NOON + timedelta(minutes=number),
    }
    return Standing(**(given | facts))


def ask(table: Table, query: str = "", **how: Any) -> Shown:
    """What an address's query shows of the table."""
    pairs = [part.split("=", 1) for part in query.split("&") if part]
    return arrange(table, BoardRequest.parse((name, value) for name, value in pairs), **how)


def numbers(shown: Shown) -> list[int]:
    return [line.row.evaluation for line in shown.lines]
