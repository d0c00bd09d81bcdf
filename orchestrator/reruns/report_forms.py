"""A re-run's report as JSON, Markdown and CSV, all of one record. Pure; the page shows the same record.

Names come from strangers: in Markdown they are escaped, in CSV no spreadsheet takes a cell for a formula.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orchestrator.board.export import safe_cell
from orchestrator.reruns.changes import Change, ModelChange, Report, Shift
from orchestrator.words import score

MINUS = "−"
MOST_ROWS = 50
"""Models that Markdown lists; JSON and CSV have all."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&])")


def as_record(report: Report) -> dict[str, Any]:
    """The report as JSON shows it: everything, unrounded."""
    return {
        "rerun": report.rerun,
        "suite": report.suite,
        "title": report.title,
        "from_version": report.from_version,
        "to_version": report.to_version,
        "from_harness": report.from_harness,
        "to_harness": report.to_harness,
        "state": report.state,
        "made_at": report.made_at.isoformat(),
        "finished_before": report.finished_before,
        "compared": report.compared,
        "only_before": list(report.only_before),
        "only_after": list(report.only_after),
        "average": _shift_record(report.average),
        "benchmarks": [_shift_record(shift) for shift in report.shifts],
        "models": [_model_record(model) for model in report.models],
        "left_out": [_model_record(model) for model in report.left_out],
    }


def as_csv(report: Report) -> str:
    """One row for each model and benchmark, the average among them; every counted model, then those left out."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([safe_cell(value) for value in row] for row in _csv_rows(report))
    return out.getvalue()


def as_markdown(report: Report) -> str:
    """The report for people, for an issue or a mail."""
    return "\n".join(_markdown(report)) + "\n"


def signed(value: float | None) -> str:
    """`+1.25`, `−0.50`, `0.00`, or a dash."""
    if value is None:
        return "–"
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def interval(shift: Shift) -> str:
    """`+0.10 to +0.90`, or a dash where one model tells nothing of the spread."""
    return "–" if shift.low is None else f"{signed(shift.low)} to {signed(shift.high)}"


def correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", MINUS)


def climbed(model: ModelChange) -> str:
    """`5 to 3 (+2)`, or a dash for a model that is not ranked under both versions."""
    if model.climbed is None:
        return "–"
    way = f" ({'+' if model.climbed > 0 else MINUS}{abs(model.climbed)})" if model.climbed else ""
    return f"{model.rank_before} to {model.rank_after}{way}"


def _shift_record(shift: Shift) -> dict[str, Any]:
    return {
        "benchmark": shift.benchmark,
        "models": shift.models,
        "changed": shift.changed,
        "mean_before": shift.mean_before,
        "mean_after": shift.mean_after,
        "shift": shift.shift,
        "shift_low": shift.low,
        "shift_high": shift.high,
        "pearson": shift.pearson,
        "spearman": shift.spearman,
        "kendall": shift.kendall,
        "verdicts": dict(shift.verdicts),
        "sentences": list(shift.sentences),
        "movers": [
            {
                "model": mover.model.model,
                "before": mover.model.before,
                "after": mover.model.after,
                "difference": mover.change.difference,
                "samples": None if mover.change is mover.model.average else mover.model.compared(shift.benchmark),
            }
            for mover in shift.movers
        ],
    }


def _model_record(model: ModelChange) -> dict[str, Any]:
    return {
        "model": model.model,
        "revision": model.revision,
        "precision": model.precision,
        "evaluation_before": model.before,
        "evaluation_after": model.after,
        "rank_before": model.rank_before,
        "rank_after": model.rank_after,
        "average": _change_record(model.average),
        "benchmarks": {change.benchmark: _change_record(change) for change in model.changes},
        "left_out_because": model.left_out_because or None,
    }


def _change_record(change: Change) -> dict[str, Any]:
    return {
        "before": change.before._asdict() if change.before else None,
        "after": change.after._asdict() if change.after else None,
        "difference": change.difference,
    }


CSV_COLUMNS = (
    "model", "revision", "precision", "benchmark", "before", "before_stderr", "after", "after_stderr", "difference",
    "rank_before", "rank_after", "evaluation_before", "evaluation_after", "left_out_because",
)  # fmt: skip


def _csv_rows(report: Report) -> Iterator[Sequence[Any]]:
    yield CSV_COLUMNS
    for model in (*report.models, *report.left_out):
        for change in (model.average, *model.changes):
            is_average = change is model.average
            yield (
                model.model,
                model.revision,
                model.precision,
                change.benchmark,
                *(change.before or (None, None)),
                *(change.after or (None, None)),
                change.difference,
                model.rank_before if is_average else None,
                model.rank_after if is_average else None,
                model.before,
                model.after,
                model.left_out_because,
            )


def _markdown(report: Report) -> Iterator[str]:
    old, new = _escaped(report.from_version), _escaped(report.to_version)
    yield f"# Re-run {report.rerun}: {_escaped(report.title)}, version {old} to {new}"
    yield ""
    compared = f"{report.compared} of {report.finished_before} finished evaluations are compared"
    if not report.finished_before:
        compared = "No evaluation that counts is finished under the old version, so there is nothing to compare"
    harnesses = f"{_escaped(report.from_harness)} to {_escaped(report.to_harness)}"
    yield f"{harnesses}. {compared}; the re-run is {report.state}."
    for names, where in ((report.only_before, report.from_version), (report.only_after, report.to_version)):
        if names:
            yield f"Only version {_escaped(where)} has {', '.join(map(_escaped, names))}."
    yield ""
    yield "## Benchmarks"
    yield ""
    yield from _table(
        SHIFT_COLUMNS,
        (
            (
                _escaped(shift.benchmark),
                str(shift.models),
                str(shift.changed),
                score(shift.mean_before),
                score(shift.mean_after),
                signed(shift.shift),
                interval(shift),
                correlation(shift.pearson),
                correlation(shift.spearman),
                correlation(shift.kendall),
                ", ".join(shift.verdicts),
            )
            for shift in (report.average, *report.shifts)
        ),
    )
    for shift in report.shifts:
        for sentence in shift.sentences:
            yield f"- {_escaped(shift.benchmark)}: {_escaped(sentence)}"
    yield ""
    yield "## Models"
    yield ""
    if not report.models:
        yield "No model is finished under both versions yet."
        yield ""
    else:
        yield from _table(
            (*MODEL_COLUMNS, *(_escaped(shift.benchmark) for shift in report.shifts)),
            (_markdown_row(model) for model in report.models[:MOST_ROWS]),
        )
        if len(report.models) > MOST_ROWS:
            yield f"The {MOST_ROWS} largest changes of {len(report.models)}. CSV and JSON have all."
            yield ""
    if report.movers:
        yield "## Largest movers"
        yield ""
        for mover in report.movers:
            model, change = mover
            link = f"[samples of {model.before} and {model.after}](<{model.compared(change.benchmark)}>)"
            yield f"- {_escaped(change.benchmark)}: {_escaped(model.model)} {signed(change.difference)} ({link})"
        yield ""
    if report.left_out:
        yield "## Not counted"
        yield ""
        for model in report.left_out:
            yield f"- {_escaped(model.model)} ({model.before}, {model.after}): {_escaped(model.left_out_because)}"
        yield ""
    yield METHOD


SHIFT_COLUMNS = (
    "Benchmark", "Models", "Changed", "Before", "After", "Mean shift", "95 % interval", "Pearson", "Spearman",
    "Kendall", "Plan",
)  # fmt: skip
MODEL_COLUMNS = ("Model", "Rank", "Average before", "After", "Change")
METHOD = (
    "Scores are 0 to 100, as the board shows them. The mean shift is the mean of the differences model by model; its "
    "interval is Student's. Kendall is tau-b. Ranks are counted among the models that are ranked under both versions."
)


def _markdown_row(model: ModelChange) -> tuple[str, ...]:
    average = model.average
    return (
        _escaped(model.model),
        climbed(model),
        score(average.before.value if average.before else None),
        score(average.after.value if average.after else None),
        signed(average.difference),
        *(signed(change.difference) for change in model.changes),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' if place == 0 else '---:' for place in range(len(columns)))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
