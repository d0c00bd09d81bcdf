"""A model's chat template: where it lies, and whether it renders a conversation. A stranger's text, never trusted.

It is rendered as transformers would, in the sandbox of Jinja, in a process of its own that has no environment, little
memory and little time: a sandbox keeps a template from calling what it must not, but not from looping for ever.
"""

import functools
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from submissions.headers import Unreadable
from submissions.repositories import Repository
from submissions.words import shown

log = logging.getLogger(__name__)

FILE = "chat_template.jinja"
"""Newer repositories keep it in a file of its own, which counts before tokenizer_config.json."""
OTHERS = "additional_chat_templates/"
"""Where there are any of these, tokenizer_config.json does not count at all."""
DEFAULT = "default"
"""Of several templates, the one that is applied where nobody names one."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
OF_A_PROCESSOR = ("chat_template.json", "processor_config.json")
"""Where a multimodal model keeps one that counts before all others; without a processor nobody reads them."""
SECONDS = 10.0
"""Of waiting for a template; the process itself may compute for less."""
MOST_CHARACTERS = 1 << 18
"""Ten times what the longest known ones have."""
AT_ONCE = 4
"""Templates that are tried at a time: each may take the memory that its process is allowed."""
MOST_REMEMBERED = 64
PROGRAM = Path(__file__).with_name("template_room.py")

_rooms = threading.BoundedSemaphore(AT_ONCE)


def find_template(repository: Repository, tokenizer_config: dict[str, Any] | None) -> str | None:
    """The text of the template that will be applied, as transformers and vLLM find it; None where there is none."""
    if any(name in repository.files for name in PROCESSORS):
        for name in OF_A_PROCESSOR:
            if text := _read(repository, name, of_json=True):
                return text
    for name in (FILE, f"{OTHERS}{DEFAULT}.jinja"):
        if text := _read(repository, name):
            return text
    if any(name.startswith(OTHERS) for name in repository.files):
        return None
    found = (tokenizer_config or {}).get("chat_template")
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get(DEFAULT)
    return _template(found)


def _read(repository: Repository, name: str, *, of_json: bool = False) -> str | None:
    """The template in this file, where it is there and can be read."""
    if name not in repository.files:
        return None
    try:
        text = repository.text(name)
        return _template(json.loads(text)["chat_template"] if of_json else text)
    except (Unreadable, ValueError, KeyError, TypeError, RecursionError):
        return None


def _template(found: Any) -> str | None:
    return found[:MOST_CHARACTERS] if isinstance(found, str) and found.strip() else None


def try_template(template: str, tokenizer_config: dict[str, Any] | None) -> str | None:
    """The end of a sentence that begins with "its chat template": what is wrong with it; None when it renders."""
    config = tokenizer_config or {}
    special = {name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return _try(template, tuple(sorted(special.items())))


def _token(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value[:100] if isinstance(value, str) else ""


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _try(template: str, special: tuple[tuple[str, str], ...]) -> str | None:
    """Many submissions share a template, and a process of its own takes a quarter of a second."""
    asked = json.dumps({"template": template, "special": dict(special)})
    command = [sys.executable, "-I", "-B", str(PROGRAM)]
    try:
        with _rooms:
            done = subprocess.run(
                command, input=asked.encode(), capture_output=True, timeout=SECONDS, env={}, check=False
            )
    except subprocess.TimeoutExpired:
        return "does not end when it renders a short conversation"
    if b"ModuleNotFoundError" in done.stderr:
        # This environment's fault and not the template's: the stage that applies it says what is wrong with it.
        log.warning("chat templates cannot be tried: %s", done.stderr[-200:])
        return None
    try:
        answer = json.loads(done.stdout)
        error = answer["error"]
    except (ValueError, KeyError, TypeError):
        return "takes more time or memory than a template may when it renders a short conversation"
    return f"does not render a conversation ({shown(str(error), most=160)})" if error else None
