"""Finds the text of a template that readers see and that no catalogue can translate."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from jinja2 import Environment, nodes

SAID_IN = frozenset({"title", "aria-label", "placeholder", "alt", "data-label", "summary"})
"""Attributes that are read out or shown."""
SAME_IN_ALL = frozenset({"code", "pre", "script", "style"})
NAMES = frozenset(
    [
        "Evalyard",
        "API",
        "OpenAPI",
        "JSON",
        "CSV",
        "Markdown",
        "Parquet",
        "SVG",
        "PNG",
        "Hub",
        "GPU",
        "CPU",
        "GB",
        "Pearson",
        "Spearman",
        "Kendall",
        "id",
        "run",
    ]
)
"""Words that are the same in every language."""
TRANSLATES = frozenset({"_", "gettext", "ngettext", "pgettext", "npgettext"})
TRANSLATED_BY = frozenset({"term", "path", "format", "score", "moment", "duration", "percent", "ago", "event"})
"""Filters whose result is a number, an address, or in the reader's language."""
NOT_SAID = re.compile(r"&\w+;|[\w-]+=\"[^\"]*\"|https?://\S+")
"""Entities, attributes that a macro writes, addresses."""
ELSEWHERE = "￼"
"""Stands for what a template is given."""


def unwrapped(environment: Environment, source: str) -> list[str]:
    """The texts of a template that are not wrapped, in their order."""
    found: list[str] = []
    page = "".join(_written(environment.parse(source), found))
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return [text for text in (*found, *reader.texts) if _is_said(text)]


def _is_said(text: str) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", NOT_SAID.sub(" ", text.replace(ELSEWHERE, " ")))
    return any(word not in NAMES for word in words)


def _written(node: nodes.Node, found: list[str]) -> Iterator[str]:
    """What a template writes, all branches one after the other; constants that macros are given go to `found`."""
    if isinstance(node, nodes.Output):
        for part in node.nodes:
            yield part.data if isinstance(part, nodes.TemplateData) else "".join(_constants(part, found))
        return
    if isinstance(node, nodes.Expr):
        return
    for child in node.iter_child_nodes():
        yield from _written(child, found)


def _constants(node: nodes.Node, found: list[str]) -> Iterable[str]:
    """The constant texts that an expression may come to."""
    if isinstance(node, nodes.Const):
        return [str(node.value)] if isinstance(node.value, str) else [ELSEWHERE]
    if isinstance(node, nodes.CondExpr):
        branches = [node.expr1, *([node.expr2] if node.expr2 else [])]
        return [text for branch in branches for text in _constants(branch, found)]
    if isinstance(node, nodes.Or | nodes.And):
        return [*_constants(node.left, found), *_constants(node.right, found)]
    if isinstance(node, nodes.Concat):
        return [text for part in node.nodes for text in _constants(part, found)]
    if isinstance(node, nodes.Filter) and node.node is not None and node.name not in TRANSLATED_BY:
        return _constants(node.node, found)
    if isinstance(node, nodes.Call):
        name = node.node.name if isinstance(node.node, nodes.Name) else ""
        if name in TRANSLATES:
            if not isinstance(node.args[0], nodes.Const):
                found.append(f"{name}() of what is not constant, which is not escaped")
            return [ELSEWHERE]
        given = [*node.args, *(pair.value for pair in node.kwargs)]
        texts = [text for part in given for text in _constants(part, found)]
        found += [text for text in texts if re.match(r"[A-Z][a-z]", text)]
        return [ELSEWHERE]
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Dict):
        return [text for pair in node.node.items for text in _constants(pair.value, found)]
    return [ELSEWHERE]


class _Reader(HTMLParser):
    """Collects what a page says."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: list[str] = []
        self._same: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in SAME_IN_ALL:
            self._same.append(tag)
        self.texts += [value or "" for name, value in attributes if name in SAID_IN]

    def handle_endtag(self, tag: str) -> None:
        if tag in self._same:
            self._same.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self._same:
            self.texts.append(data)
