"""The cells that a board has hundreds of, written without the template engine: it would take most of a page's time.

Benchmarks' names are escaped here by hand; everything else in a cell is a number.
"""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup, escape

from orchestrator.board import Standing


class _Name(NamedTuple):
    """A benchmark's name, safe to write."""

    text: str
    anchor: str


def score_cell(row: Standing, name: str, show: str = "") -> Markup:
    """One benchmark of one row, with its error, a bar and where it comes from."""
    safe, cell = _safe(name), row.cells.get(name)
    if cell is None:
        return Markup(f'<td class="n" data-label="{safe.text}"><span class="muted">–</span></td>')  # noqa: S704
    if show == "raw" and cell.raw is not None:
        value, stderr = cell.raw, None
    else:
        value, stderr = cell.value, cell.stderr
    told = f", raw {cell.raw:.2f}" if cell.raw is not None else ""
    error = f"<small> ±{stderr:.2f}</small>" if stderr is not None else ""
    return Markup(  # noqa: S704  # numbers, and a name that is escaped
        f'<td class="n" data-label="{safe.text}"><a class="score" href="/evaluations/{row.evaluation:d}#{safe.anchor}" '
        f'title="{cell.value:.2f}{told}, {cell.samples:d} samples">{value:.2f}</a>{error}{_bar(value, stderr)}</td>'
    )


def score_bar(value: float, stderr: float | None = None) -> Markup:
    """From 0 to 100, with the 95 % interval where the standard error is known."""
    return Markup(_bar(value, stderr))  # noqa: S704  # numbers


def _bar(value: float, stderr: float | None) -> str:
    interval = ""
    if stderr:
        low, high = max(0.0, value - 1.96 * stderr), min(100.0, value + 1.96 * stderr)
        interval = f'<rect class="interval" x="{low:.1f}%" width="{max(0.0, high - low):.1f}%" height="4"/>'
    return (
        '<svg class="bar" aria-hidden="true" width="100%" height="4">'
        '<rect class="rail" width="100%" height="4" rx="2"/>'
        f'<rect class="fill" width="{min(100.0, max(0.0, value)):.1f}%" height="4" rx="2"/>{interval}</svg>'
    )


@lru_cache(maxsize=1000)
def _safe(name: str) -> _Name:
    return _Name(str(escape(name)), quote(name, safe=""))
