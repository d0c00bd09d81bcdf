"""The static board: pages that need no server, no network and no JavaScript to be read.

A page holds its style and script itself, named by digest in a content security policy, so that it may lie anywhere and
be opened as a file; nothing else can run in it. Whatever came from a stranger is escaped. Each page is there once for
each language of the interface, side by side.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.artifacts import slug
from orchestrator.board import Shown, Standing
from orchestrator.board.request import SIZES
from orchestrator.board.view import Line
from orchestrator.suites import Suite
from submissions import languages, words
from submissions.languages import LANGUAGES, Language, gettext
from submissions.languages.catalogues import ENGLISH
from submissions.languages.present import speaking
from submissions.pages.cells import score_bar

HTML_ROWS = 1000
"""Ranked rows that stand in the page itself; the script adds the others from data that the page holds too."""


@dataclass(frozen=True)
class Listed:
    """A suite's board as the front page lists it."""

    suite: Suite
    ranked: int
    best: str
    newest: datetime | None


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(str(files("submissions") / "publishing" / "pages")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    # What the extension adds is known to no type checker.
    environment.install_gettext_callables(gettext, languages.ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.filters |= {
        "score": words.score,
        "parameters": words.parameters,
        "revision": words.revision,
        "moment": words.moment,
        "path": lambda part: quote(str(part)),
        "slug": slug,
        "term": gettext,
    }
    environment.globals |= {
        "score_bar": score_bar,
        "anchor": anchor,
        "hub_page": hub_page,
        "told": _told,
        "page": _page_parts,
        "page_name": page_name,
        "languages": LANGUAGES,
        "language": languages.present_language,
    }
    return environment


def page_name(language: Language) -> str:
    """The file of a page in this language: `index.html`, `index.zh.html`."""
    return "index.html" if language == ENGLISH else f"index.{language.code}.html"


def board_page(
    shown: Shown, *, results: dict[int, str], others: Sequence[Listed], language: Language = ENGLISH
) -> bytes:
    """The page of one suite; `results` are the addresses of rows' results, seen from the page."""
    rest = shown.lines[HTML_ROWS:]
    with speaking(language):
        html = (
            _environment()
            .get_template("board.html")
            .render(
                suite=shown.suite,
                shown=shown,
                lines=shown.lines[:HTML_ROWS],
                more=_data([_packed(line, shown, results) for line in rest]),
                rest=len(rest),
                results=results,
                others=others,
                sizes=SIZES,
                types=sorted({line.row.model_type for line in shown.lines}),
                precisions=sorted({line.row.precision for line in shown.lines}),
                has_imported=any(line.row.imported_from for line in (*shown.lines, *shown.apart)),
                has_flags=any(line.row.flags for line in shown.lines),
                spoken=_spoken_by_script(),
            )
        )
    return html.encode()


def front_page(listed: Sequence[Listed], *, language: Language = ENGLISH) -> bytes:
    """The page that leads to the boards."""
    with speaking(language):
        return _environment().get_template("front.html").render(listed=listed).encode()


def card(listed: Sequence[Listed], *, has_parquet: bool) -> bytes:
    """The README of a data set repository, by which the Hub's viewer finds the tables."""
    ending = "parquet" if has_parquet else "jsonl"
    configs = "".join(
        f"- config_name: {slug(one.suite.name)}\n  data_files: {slug(one.suite.name)}/contents/contents.{ending}\n"
        for one in listed
    )
    boards = "".join(
        f"- `{slug(one.suite.name)}/`: {one.suite.title}, version {one.suite.version}, {one.ranked} ranked\n"
        for one in listed
    )
    text = f"""---
{"configs:" if configs else "configs: []"}
{configs}---

# A leaderboard, published by Evalyard

{boards}
In each folder: `index.html` is the board as a page (download it and open it), `contents/` one row for each evaluation
with the columns of the Open LLM Leaderboard, `results/` what was scored in lm-eval's form with its provenance under
`evalyard`, `requests/` what was asked for, `suite.json` what was measured.

`evalyard import hf://datasets/…` reads it back with the same ranks. Everything here is written by `evalyard publish`:
a change by hand is overwritten.
"""
    return text.encode()


def anchor(row: Standing) -> str:
    """A row's own address on the page: the same as long as model, revision, precision and template are."""
    facts = [row.revision, row.precision, str(row.chat_template), row.engine, str(row.document_limit), row.weight_type]
    digest = hashlib.sha256("\n".join([row.model, *facts, row.imported_from]).encode()).hexdigest()[:8]
    return f"{slug(row.model)}-{digest}"


def hub_page(row: Standing) -> str:
    """The model's page on the Hub; empty for one that is not there."""
    if not row.on_hub or "/" not in row.model:
        return ""
    is_commit = len(row.revision) == 40 and set(row.revision) <= set("0123456789abcdef")
    return f"https://huggingface.co/{quote(row.model)}" + (f"/tree/{row.revision}" if is_commit else "")


def _packed(line: Line, shown: Shown, results: dict[int, str]) -> list[Any]:
    """A row for the script: what the page's own rows say, in the order in which the script writes it."""
    row = line.row
    return [
        anchor(row),
        line.rank,
        f"{line.places[0]}–{line.places[1]}" if line.places and line.places[0] != line.places[1] else "",
        row.model,
        results.get(row.evaluation, ""),
        _told(row),
        [gettext(flag.kind.replace("-", " ")) for flag in row.flags],
        row.imported_from,
        [words.score(line.average), words.score(line.stderr) if line.stderr is not None else ""],
        [_cell(row, name) for name in shown.benchmarks],
        row.parameters,
        words.parameters(row.parameters),
        row.model_type,
        row.precision,
        row.licence or "–",
        f"{row.ended_at:%Y-%m-%d}" if row.ended_at else "–",
        row.architecture or "",
    ]


def _cell(row: Standing, name: str) -> str:
    return words.score(row.cells[name].value) if name in row.cells else "–"


def _told(row: Standing) -> str:
    """The small print under a model's name."""
    parts = [row.precision, words.revision(row.revision)]
    if row.weight_type == "adapter":
        parts.append(gettext("adapter of %(model)s") % {"model": row.base_model})
    if row.chat_template:
        parts.append(gettext("chat template"))
    if not row.on_hub:
        parts.append(gettext("local"))
    return " · ".join(parts)


def _spoken_by_script() -> dict[str, str]:
    """What the script writes, in the present language; it fills in what stands in braces."""
    return {
        "all": gettext("{all} rows"),
        "some": gettext("{some} of {all} rows"),
        "results": gettext("results"),
        "imported": gettext("imported"),
        "from": gettext("These numbers come from %(source)s") % {"source": "{source}"},
    }


def _data(rows: list[Any]) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # nothing in it can be markup any more


@lru_cache(maxsize=1)
def _page_parts() -> dict[str, Any]:
    """Style and script as they stand in every page, and the policy that allows these two and nothing else."""
    folder = files("submissions") / "publishing" / "pages"
    style, script = ((folder / name).read_text(encoding="utf-8").strip() for name in ("board.css", "board.js"))
    assert "</" not in style + script
    policy = (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": policy}  # noqa: S704  # our own files


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
