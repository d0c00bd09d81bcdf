"""A score's history as a drawing of a line's height: an SVG that needs no script, no file and no style of its own."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from submissions.languages import gettext

WIDTH, HEIGHT, EDGE = 96.0, 28.0, 4.0
LEAST_SPAN = 2.0
"""Points between the drawing's bottom and top: less would make noise look like change."""


def sparkline(name: str, values: Sequence[float]) -> Markup:
    """The values from left to right, the last one marked; empty for fewer than two."""
    if len(values) < 2:
        return Markup()
    places = _places(values)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    (x, y) = places[-1]
    told = ", ".join(f"{value:.2f}" for value in values)
    label = escape(gettext("{name} over time: {values}").format(name=name, values=told))
    return Markup(  # noqa: S704  # numbers, and a label that is escaped
        f'<svg class="spark" role="img" aria-label="{label}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" '
        f'height="{HEIGHT:g}"><title>{label}</title><polyline points="{points}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


def _places(values: Sequence[float]) -> list[tuple[float, float]]:
    low, high = min(values), max(values)
    middle, span = (low + high) / 2, max(high - low, LEAST_SPAN)
    step = (WIDTH - 2 * EDGE) / (len(values) - 1)
    return [
        (EDGE + step * place, EDGE + (HEIGHT - 2 * EDGE) * (0.5 - (value - middle) / span))
        for place, value in enumerate(values)
    ]
