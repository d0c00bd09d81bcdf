"""The web process's log: lines without secrets, whoever wrote them."""

import logging
import re

HIDDEN = "[hidden]"
SECRETS = (
    re.compile(r"\bevy_[A-Za-z0-9_-]{8,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*"),
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
    re.compile(r"(?<=[?&]code=)[^&\s\"']+|(?<=[?&]state=)[^&\s\"']+"),
    re.compile(r"(?i)(?:(?<=evalyard-session=)|(?<=evalyard-signin=))[^;\s\"']+"),
)
"""Tokens of this site and of the Hub, bearer tokens, passwords in addresses, codes and states of sign-ins, sessions."""


class WithoutSecrets(logging.Formatter):
    """Formats a line, traceback and all, and takes out what looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redacted(text: str) -> str:
    for pattern in SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text


def begin_log() -> None:
    """Let everything that this process logs go to standard error, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(WithoutSecrets("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
