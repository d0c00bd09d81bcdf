"""The picture of a training run: a line for the average and one for each benchmark, by step. Pure."""

from typing import Any

from orchestrator.board.pictures import DARK, LIGHT, PALETTE, Spec, whole
from orchestrator.series import Run

MOST_LINES = 12
"""Benchmarks; with more nobody tells one colour from another. The table has all."""
AVERAGE = "Average"
COLOURS = [*PALETTE, "#be3e6f", "#5f8a1e", "#8a5a2b", "#4b5f75", "#c7911b", "#2b8fa3", "#9b4fa8", "#737d3a"]


def draw(name: str, run: Run, *, dark: bool = False) -> Spec:
    """The specification of one run's picture; an empty one says so in its title."""
    colours = DARK if dark else LIGHT
    benchmarks = run.benchmarks[:MOST_LINES]
    latest = {point.step: point for point in run.points}  # of several evaluations of a step the last one
    values: list[dict[str, Any]] = []
    for point in latest.values():
        facts = {"step": point.step, "url": f"/evaluations/{point.evaluation}", "evaluation": point.evaluation}
        if point.average is not None:
            values.append({"line": AVERAGE, "score": round(point.average, 3)} | facts)
        for benchmark in benchmarks:
            if (found := point.benchmarks.get(benchmark)) is not None:
                value, stderr = found
                reach = 1.96 * (stderr or 0.0)
                interval = {"low": round(max(0.0, value - reach), 3), "high": round(min(100.0, value + reach), 3)}
                values.append({"line": benchmark, "score": round(value, 3)} | interval | facts)
    order = [AVERAGE, *benchmarks]
    colour: Spec = {"field": "line", "type": "nominal", "sort": order, "legend": {"orient": "right", "title": None}}
    colour["scale"] = {"domain": order, "range": [colours["ink"], *COLOURS[: len(benchmarks)]]}
    x: Spec = {"field": "step", "type": "quantitative", "title": "Step", "scale": {"zero": False}}
    y: Spec = {"field": "score", "type": "quantitative", "title": "Score", "scale": {"zero": False}}
    told = [{"field": field, "type": "nominal"} for field in ("line", "step", "score", "evaluation")]
    is_average = {"condition": {"test": f"datum.line === '{AVERAGE}'", "value": 3}, "value": 1.5}
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "opacity": 0.35},
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": colour,
            },
            "transform": [{"filter": "isValid(datum.low)"}],
        },
        {"mark": {"type": "line"}, "encoding": {"x": x, "y": y, "color": colour, "strokeWidth": is_average}},
        {
            "mark": {"type": "point", "filled": True, "size": 50, "cursor": "pointer"},
            "encoding": {"x": x, "y": y, "color": colour, "href": {"field": "url", "type": "nominal"}, "tooltip": told},
        },
    ]
    note = f"{run.suite}, version {run.suite_version}. The lines through the points are 95 % intervals."
    if not values:
        note = "No checkpoint has a score yet."
    return whole(f"{name}: score by step", note, layers, colours) | {"data": {"values": values}}
