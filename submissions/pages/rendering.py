"""Templates and what they may call. Everything that came from a stranger is escaped."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from orchestrator.people import Role, Scope
from orchestrator.program import FIRST_SUBMISSION, program
from submissions import languages, words
from submissions.pages import telling
from submissions.pages.cells import score_bar, score_cell
from submissions.pages.lines import Lines, model_name, tie_sentence
from submissions.people.viewer import present
from submissions.records import EvaluationRecord


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(str(files("submissions") / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    # What the extension adds is known to no type checker.
    environment.install_gettext_callables(languages.gettext, languages.ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.filters |= {
        "score": words.score,
        "parameters": words.parameters,
        "revision": words.revision,
        "moment": words.moment,
        "percent": words.percent,
        "duration": telling.duration,
        "event": telling.event,
        "term": languages.gettext,
        "job_state": words.job_state,
        "path": lambda part: quote(str(part), safe=""),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
    }
    environment.globals |= {
        "score_cell": score_cell,
        "score_bar": score_bar,
        "lines_of": Lines,
        "model_name": model_name,
        "tie_sentence": tie_sentence,
        "may_change": may_change,
        "may_operate": may_operate,
        "program": program,
        "first_submission": FIRST_SUBMISSION,
        "viewer": present,
        "languages": languages.LANGUAGES,
        "language": languages.present_language,
        "address_in": languages.address_in,
    }
    return environment


def may_change(evaluation: EvaluationRecord) -> bool:
    """Whether whoever looks at a page may cancel and retry this; the routes themselves make sure of it."""
    viewer = present()
    return viewer.may(Role.OPERATOR, Scope.OPERATE) or (
        viewer.person is not None and evaluation.person == viewer.person
    )


def may_operate() -> bool:
    """Whether whoever looks at a page is an operator; the routes themselves make sure of it."""
    return present().may(Role.OPERATOR, Scope.OPERATE)


TEMPLATES = _environment()


def render(name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **facts: Any) -> HTMLResponse:
    now = datetime.now(UTC)
    html = TEMPLATES.get_template(name).render(now=now, ago=lambda at: telling.ago(at, now), **facts)
    return HTMLResponse(html, status_code=status, headers=headers)
