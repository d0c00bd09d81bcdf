"""Renders one chat template of a stranger's on a sample conversation: a program of its own, started by its path.

Standard input: JSON with `template` and `special`; standard output: JSON with `error`, empty when it renders. It limits
itself before it looks at the template, imports nothing of Evalyard, and has no environment.
"""

import json
import resource
import sys
from collections.abc import Callable

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 3
MEMORY = 1 << 29
QUESTION, ANSWER, AGAIN = "Which river is longest?", "The Nile, by most counts.", "And the second?"
CONVERSATION = (
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": AGAIN},
)
"""Roles alternate and none is a system's: that is what every template takes."""


class Generation(Extension):
    """transformers' `{% generation %}` block marks what the assistant says; it changes no text."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        number = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(number)

    def _said(self, caller: Callable[[], str]) -> str:
        return caller()


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))


def refuse(message: object) -> None:
    raise TemplateError(str(message))


def try_template(template: str, special: dict[str, str]) -> str:
    """What is wrong with it, or nothing."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None, **_: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"
    try:
        made = environment.from_string(template)
        text = made.render(
            messages=[dict(one) for one in CONVERSATION],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **special,
        )
    except MemoryError:
        return "it takes too much memory"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if AGAIN not in text:
        return "the last question is missing from what it writes"
    return ""


if __name__ == "__main__":
    limit()
    asked = json.load(sys.stdin)
    print(json.dumps({"error": try_template(asked["template"], asked["special"])[:400]}))
