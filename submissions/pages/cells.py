"""The cells that a board has hundreds of, written without the template engine: it would take most of a page's time.

Benchmarks' names are escaped here by hand; everything else in a cell is a number.
"""

from collections.abc import Callable
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
    return Markup(score_writer(name, show)(row))  # noqa: S704  # numbers, and a name that is escaped


def score_writer(name: str, show: str = "") -> Callable[[Standing], str]:
    """Writes a benchmark's cell of any row; `show`: `raw` for the number before normalisation."""
    safe = _safe(name)
    none = f'<td class="n" data-label="{safe.text}"><span class="muted">–</span></td>'
    start = f'<td class="n" data-label="{safe.text}"><a class="score" href="/evaluations/'
    anchor = f'#{safe.anchor}" title="'

    def write(row: Standing) -> str:
        cell = row.cells.get(name)
        if cell is None:
            return none
        value, raw, stderr, samples = cell
        told = f"{value:.2f}" if raw is None else f"{value:.2f}, raw {raw:.2f}"
        if show == "raw" and raw is not None:
            value, stderr = raw, None
        error = f"<small> ±{stderr:.2f}</small>" if stderr is not None else ""
        shown = f"{value:.2f}</a>{error}{bar(value, stderr)}"
        return f'{start}{row.evaluation}{anchor}{told}, {samples} samples">{shown}</td>'

    return write


def score_bar(value: float, stderr: float | None = None) -> Markup:
    """From 0 to 100, with the 95 % interval where the standard error is known."""
    return Markup(bar(value, stderr))  # noqa: S704  # numbers


def bar(value: float, stderr: float | None) -> str:
    """The same, as text that is not to be escaped."""
    interval = ""
    if stderr:
        low, high = value - 1.96 * stderr, value + 1.96 * stderr
        low, high = low if low > 0 else 0.0, high if high < 100 else 100.0
        interval = f'<rect class="interval" x="{low:.1f}%" width="{high - low if high > low else 0:.1f}%" height="4"/>'
    width = value if 0 < value < 100 else 100.0 if value >= 100 else 0.0
    return (
        '<svg class="bar" aria-hidden="true" width="100%" height="4">'
        '<rect class="rail" width="100%" height="4" rx="2"/>'
        f'<rect class="fill" width="{width:.1f}%" height="4" rx="2"/>{interval}</svg>'
    )


@lru_cache(maxsize=1000)
def _safe(name: str) -> _Name:
    return _Name(str(escape(name)), quote(name, safe=""))
