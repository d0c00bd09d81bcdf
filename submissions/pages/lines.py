"""Rows of a board as HTML, written without the template engine: it would take most of a page's time.

What came from a stranger is escaped here by hand, each at its place; everything else is a number or a word of ours.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from orchestrator.board import Line, Shown, Standing
from orchestrator.board.columns import Column
from orchestrator.board.ties import Tie
from orchestrator.people import Visibility
from submissions import words
from submissions.languages import gettext as _
from submissions.pages.cells import bar, score_writer

Write = Callable[[Line], str]
LETTERS = {
    "pretrained": "P",
    "continuously-pretrained": "C",
    "fine-tuned": "F",
    "chat": "Ch",
    "merge": "M",
    "multimodal": "V",
}
NONE = '<span class="muted">–</span>'


def model_name(row: Standing) -> Markup:
    """What a row is of: kind, name, flags, and in small print how it was loaded."""
    kind, model = escape(_(row.model_type)), escape(row.model)
    small = f"{escape(row.precision)} · {_revision(row.revision)}"
    if row.weight_type == "adapter":
        small += f" · {escape(_('adapter of %(model)s') % {'model': row.base_model})}"
    if row.chat_template:
        small += f" · {escape(_('chat template'))}"
    if not row.on_hub:
        small += f" · {escape(_('local'))}"
    if row.visibility is not Visibility.PUBLIC:
        small += f" · {escape(_(row.visibility.value))}"
    return Markup(  # noqa: S704  # escaped above
        f'<span class="named"><span class="kind {escape(row.model_type)}" title="{kind}"><span aria-hidden="true">'
        f'{LETTERS.get(row.model_type, "?")}</span><span class="hidden">{kind}</span></span>'
        f'<a href="/evaluations/{row.evaluation:d}" title="{model}">{model}</a> {flags(row)}{_imported(row)}\n'
        f"<small>{small}</small></span>"
    )


def _imported(row: Standing) -> str:
    """That its numbers were not made here, and where they come from."""
    if not row.imported_from:
        return ""
    hint = escape(_("These numbers come from %(source)s") % {"source": row.imported_from})
    link = f"/evaluations/{row.evaluation:d}#imported"
    return f' <a class="badge" href="{link}" title="{hint}">{escape(_("imported"))}</a>'


def flags(row: Standing) -> str:
    """What operators warn of, each with its reason."""
    if not row.flags:
        return ""
    return "".join(
        f'<a class="badge flag" href="{escape(flag.link or f"/evaluations/{row.evaluation:d}#flags")}" '
        f'title="{escape(flag.reason)}" rel="nofollow noopener"><span aria-hidden="true">⚑</span> '
        f'{escape(_(flag.kind.replace("-", " ")))}<span class="hidden">: {escape(flag.reason)}</span></a>'
        for flag in row.flags
    )


class Lines:
    """Writes the rows of one page: what is the same in all of them is made once."""

    def __init__(
        self, shown: Shown, *, ago: Callable[[datetime], str], pin_link: Callable[[int], str | None] | None = None
    ) -> None:
        self._show, self._ago, self._pin_link = shown.request.show, ago, pin_link
        self._has_own_ranks = bool(shown.request.rank)
        self._pinned = {line.row.evaluation for line in shown.pinned}
        self._writers = [self._writer(column) for column in shown.columns]

    def rows(self, lines: Iterable[Line]) -> Markup:
        """A table row for each."""
        return Markup("".join([self._row(line) for line in lines]))  # noqa: S704  # written here

    def cell(self, column: Column, line: Line) -> Markup:
        """One cell of a column that need not be among those of the rows."""
        return Markup(self._writer(column)(line))  # noqa: S704  # written here

    def _row(self, line: Line) -> str:
        start = '<tr class="pinned">' if line.is_pinned else "<tr>"
        return start + "".join([write(line) for write in self._writers]) + "</tr>\n"

    def _writer(self, column: Column) -> Write:
        if column.benchmark:
            write = score_writer(column.benchmark, self._show)
            return lambda line: write(line.row)
        match column.key:
            case "rank":
                return self._rank_writer()
            case "model":
                return lambda line: f'<th scope="row">{model_name(line.row)}</th>'
            case "average":
                return _average_writer(escape(_("Average")))
            case "places":
                label = escape(_("Places"))
                return lambda line: f'<td data-label="{label}">{_range(line.places) if line.places else "–"}</td>'
            case "flags":
                label = escape(_("Flags"))
                return lambda line: f'<td data-label="{label}">{flags(line.row) or "–"}</td>'
        return self._fact_writer(column)

    def _rank_writer(self) -> Write:
        label = escape(_("Rank"))
        put = str(escape(_("Pin %(model)s"))), escape(_("pin"))
        taken = str(escape(_("Unpin %(model)s"))), escape(_("unpin"))

        def write(line: Line) -> str:
            rank = NONE
            if line.rank:
                rank = f'<span class="place place-{line.rank if line.rank <= 3 else "other"}">{line.rank}</span>'
                if line.tie and line.tie.rows > 1 and not self._has_own_ranks:
                    rank += _tie(line.row, line.tie)
            link = self._pin_link(line.row.evaluation) if self._pin_link else None
            pin = ""
            if link is not None:
                is_pinned = line.row.evaluation in self._pinned  # its row further down says so too
                told, mark = taken if is_pinned else put
                pin = (
                    f'<a class="pin{" on" if is_pinned else ""}" href="{escape(link)}" '
                    f'aria-label="{told % {"model": escape(line.row.model)}}">{mark}</a>'
                )
            return f'<td class="rank" data-label="{label}">{rank}{pin}</td>'

        return write

    def _fact_writer(self, column: Column) -> Write:
        start = f'<td class="{"n" if column.is_number else "wrapped"}" data-label="{escape(_(column.title))}">'
        value_of, written = column.value, self._fact(column)

        def write(line: Line) -> str:
            value = value_of(line.row)
            return f"{start}{NONE if value is None else written(value)}</td>"

        return write

    def _fact(self, column: Column) -> Callable[[Any], str]:
        """How a value of the column is written."""
        match column.key:
            case "revision":
                return _revision
            case "type" | "weights":
                return lambda value: escape(_(value))
        match column.kind:
            case "count":
                return words.parameters
            case "number":
                return lambda value: f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
            case "date":
                return self._moment
            case "yes":
                yes, no = escape(_("yes")), escape(_("no"))
                return lambda value: yes if value else no
        return escape

    def _moment(self, at: datetime) -> str:
        return f'<time datetime="{at.isoformat()}" title="{words.moment(at)}">{escape(self._ago(at))}</time>'


def _average_writer(label: str) -> Write:
    start = f'<td class="n average" data-label="{label}"><strong>'

    def write(line: Line) -> str:
        if line.average is None:
            return f"{start}–</strong></td>"
        error = "" if line.stderr is None else f"<small> ±{line.stderr:.2f}</small>"
        return f"{start}{line.average:.2f}</strong>{error}{bar(line.average, line.stderr)}</td>"

    return write


def _revision(text: str) -> str:
    return f'<code title="{escape(text)}">{escape(words.revision(text))}</code>'


def tie_sentence(tie: Tie) -> str:
    """Why a row is in its tie, and how surely."""
    if tie.difference is None:
        return _("The best of a tie of %(rows)s rows") % {"rows": tie.rows}
    known = {"model": tie.best.model, "difference": f"{tie.difference.value:.2f} ± {tie.difference.stderr:.2f}"}
    if not tie.difference.documents:
        return _("Not told apart from %(model)s: difference %(difference)s by the standard errors of both") % known
    known["documents"] = f"{tie.difference.documents:,}"
    return _("Not told apart from %(model)s: difference %(difference)s, paired over %(documents)s documents") % known


def _tie(row: Standing, tie: Tie) -> str:
    """The ranks of a tie, with a link to the comparison where both answered the same documents."""
    ranks = _range((tie.first, tie.last))
    shown = f'<small title="{escape(tie_sentence(tie))}">{ranks}</small>'
    if tie.difference is None or not tie.difference.documents:
        return shown
    link = f"/diff?a={tie.best.evaluation:d}&amp;b={row.evaluation:d}"
    return f'<small><a href="{link}" title="{escape(tie_sentence(tie))}">{ranks}</a></small>'


def _range(places: tuple[int, int]) -> str:
    return f"{places[0]}–{places[1]}"
