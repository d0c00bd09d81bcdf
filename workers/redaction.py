"""Takes secrets out of what leaves this host as text: log tails and sentences are shown on pages."""

import re
from collections.abc import Iterable

_PATTERNS = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*"),
)
"""Hub tokens, passwords in addresses, and bearer tokens, whoever they belong to."""

HIDDEN = "[hidden]"


class Redactor:
    """Hides the secrets this process knows, and whatever looks like one."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        self._secrets = sorted({secret for secret in secrets if secret and len(secret) >= 6}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return text
