"""Pictures of what a board shows, as Vega-Lite specifications: one text for the browser and for SVG and PNG. Pure."""

from collections.abc import Sequence
from typing import Any, Literal

from orchestrator.board.view import Line, Shown
from orchestrator.words import count

Kind = Literal["size", "time", "compare"]
KINDS: dict[Kind, str] = {
    "size": "Score against parameters",
    "time": "Score over time",
    "compare": "The pinned models side by side",
}
MOST_POINTS = 2000
"""The first rows in the shown order; more than that is a cloud, and slow to draw. Lines are drawn through all."""
INTERVAL = 1.96
LIGHT = {
    "ink": "#1b2226",
    "soft": "#59646b",
    "line": "#dfe3e0",
    "ground": "#ffffff",
    "fill": "#0f766e",
    "front": "#b45309",
}
DARK = {
    "ink": "#e6ecec",
    "soft": "#9fadb1",
    "line": "#2d383c",
    "ground": "#1a2225",
    "fill": "#2dd4bf",
    "front": "#f5c96b",
}
PALETTE = ["#0f766e", "#b45309", "#6d5bd0", "#3a7ebf"]

Spec = dict[str, Any]


def draw(shown: Shown, kind: Kind, *, dark: bool = False) -> Spec:
    """The specification of one picture; an empty one says so in its title."""
    colours = DARK if dark else LIGHT
    if kind == "compare":
        return _compare(shown, colours)
    lines = [line for line in shown.lines if line.average is not None]
    return _size(lines, colours) if kind == "size" else _time(lines, colours)


def pareto_front(lines: Sequence[Line]) -> list[Line]:
    """The rows that no smaller or equally large one beats, the smallest first."""
    sized = [line for line in lines if line.row.parameters and line.average is not None]
    front: list[Line] = []
    for line in sorted(sized, key=lambda line: (line.row.parameters or 0, -(line.average or 0.0))):
        if not front or (line.average or 0.0) > (front[-1].average or 0.0):
            front.append(line)
    return front


def _size(lines: Sequence[Line], colours: dict[str, str]) -> Spec:
    sized = [line for line in lines if line.row.parameters]
    front = [_point(line) for line in pareto_front(sized)]
    x = {"field": "parameters", "type": "quantitative", "scale": {"type": "log"}, "title": "Parameters"}
    x |= {"axis": {"format": "~s"}}
    best = {"type": "line", "interpolate": "step-after", "color": colours["front"], "strokeWidth": 2}
    layers = [
        _interval(x, sized, colours),
        _points(x, sized[:MOST_POINTS], colours),
        {"data": {"values": front}, "mark": best, "encoding": {"x": x, "y": _average()}},
    ]
    left_out = len(lines) - len(sized)
    note = f"The line is the Pareto front: no smaller model scores higher. {count(len(sized), 'model')}"
    note += f", {left_out} of unknown size left out" if left_out else ""
    note += _drawn(sized)
    return whole("Score against parameters", note, layers, colours)


def _time(lines: Sequence[Line], colours: dict[str, str]) -> Spec:
    dated = [line for line in lines if line.row.ended_at]
    best: list[Spec] = []
    for line in sorted(dated, key=lambda line: str(line.row.ended_at)):
        if not best or (line.average or 0.0) > best[-1]["average"]:
            best.append(_point(line))
    x = {"field": "ended", "type": "temporal", "title": "Scored"}
    mark = {"type": "line", "interpolate": "step-after", "color": colours["front"], "strokeWidth": 2}
    layers = [
        _interval(x, dated, colours),
        _points(x, dated[:MOST_POINTS], colours),
        {"data": {"values": best}, "mark": mark, "encoding": {"x": x, "y": _average()}},
    ]
    note = f"The line is the best so far. {count(len(dated), 'model')}{_drawn(dated)}"
    return whole("Score over time", note, layers, colours)


def _drawn(lines: Sequence[Line]) -> str:
    """How many of them are points, where not all are; it ends the note."""
    return f"; the first {MOST_POINTS:,} in the table are points." if len(lines) > MOST_POINTS else "."


def _compare(shown: Shown, colours: dict[str, str]) -> Spec:
    names = shown.benchmarks or tuple(benchmark.name for benchmark in shown.suite.benchmarks)
    labels = {line.row.evaluation: f"{line.row.model} #{line.row.evaluation}" for line in shown.pinned}
    values = [
        {
            "benchmark": name,
            "model": labels[line.row.evaluation],
            "value": round(cell.value, 3),
            "low": round(max(0.0, cell.value - INTERVAL * (cell.stderr or 0.0)), 3),
            "high": round(min(100.0, cell.value + INTERVAL * (cell.stderr or 0.0)), 3),
        }
        for line in shown.pinned
        for name in names
        if (cell := line.row.cells.get(name)) is not None
    ]
    order = list(labels.values())
    colour = {"field": "model", "type": "nominal", "scale": {"domain": order, "range": PALETTE}, "sort": order}
    colour |= {"legend": {"orient": "bottom", "columns": 1, "labelLimit": 500, "title": None}}
    x: Spec = {"field": "benchmark", "type": "nominal", "sort": list(names), "title": None, "axis": {"labelAngle": 0}}
    offset = {"field": "model", "sort": order}
    layers = [
        {
            "mark": {"type": "bar", "tooltip": True},
            "encoding": {"x": x, "xOffset": offset, "y": _average("value", "Score"), "color": colour},
        },
        {
            "mark": {"type": "rule", "color": colours["ink"], "opacity": 0.6},
            "encoding": {"x": x, "xOffset": offset, "y": _average("low", "Score"), "y2": {"field": "high"}},
        },
    ]
    spec = whole("Scores side by side", "With 95 % intervals.", layers, colours)
    return spec | {"data": {"values": values}}


def _point(line: Line) -> Spec:
    row = line.row
    assert line.average is not None
    point: Spec = {
        "model": row.model,
        "average": round(line.average, 3),
        "parameters": row.parameters,
        "type": row.model_type,
        "precision": row.precision,
        "url": f"/evaluations/{row.evaluation}",
    }
    if row.ended_at is not None:
        point["ended"] = row.ended_at.isoformat()
    if line.stderr is not None:
        point |= {
            "low": round(line.average - INTERVAL * line.stderr, 3),
            "high": round(line.average + INTERVAL * line.stderr, 3),
        }
    return point


def _points(x: Spec, lines: Sequence[Line], colours: dict[str, str]) -> Spec:
    mark: Spec = {"type": "point", "filled": True, "size": 55, "opacity": 0.8, "color": colours["fill"]}
    told = [("model", "nominal"), ("average", "quantitative"), ("parameters", "quantitative"), ("type", "nominal")]
    return {
        "data": {"values": [_point(line) for line in lines]},
        "mark": mark | {"cursor": "pointer"},
        "encoding": {
            "x": x,
            "y": _average(),
            "href": {"field": "url", "type": "nominal"},
            "tooltip": [
                {"field": name, "type": kind, "format": ".3~s" if name == "parameters" else ".2f"}
                if kind == "quantitative"
                else {"field": name, "type": kind}
                for name, kind in told
            ],
        },
    }


def _interval(x: Spec, lines: Sequence[Line], colours: dict[str, str]) -> Spec:
    known = [_point(line) for line in lines if line.stderr is not None] if len(lines) <= 100 else []
    return {
        "data": {"values": known},
        "mark": {"type": "rule", "color": colours["soft"], "opacity": 0.55},
        "encoding": {"x": x, "y": _average("low"), "y2": {"field": "high"}},
    }


def _average(field: str = "average", title: str = "Average") -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": title == "Score"}}


def whole(title: str, note: str, layers: list[Spec], colours: dict[str, str]) -> Spec:
    """A picture of these layers, in the size, words and colours that all of them have."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": title, "subtitle": note, "anchor": "start"},
        "width": 860,
        "height": 380,
        "background": colours["ground"],
        "layer": layers,
        "config": {
            "font": "sans-serif",
            "title": {
                "color": colours["ink"],
                "subtitleColor": colours["soft"],
                "fontSize": 15,
                "subtitleFontSize": 12,
            },
            "axis": {
                "labelColor": colours["soft"],
                "titleColor": colours["soft"],
                "gridColor": colours["line"],
                "domainColor": colours["line"],
                "tickColor": colours["line"],
                "labelFontSize": 12,
                "titleFontSize": 12,
            },
            "legend": {"labelColor": colours["ink"], "labelFontSize": 12},
            "view": {"stroke": None},
        },
    }
