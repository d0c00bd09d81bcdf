"""Looks for secrets in tracked files, with detect-secrets and what it knows of tokens' forms.

Only detectors that know a form: what is merely random or called a password is everywhere in a project that tests
digests and tokens, and those detectors take a minute. A file is read line by line only where a detector's own pattern
is somewhere in it.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parent.parent.parent
KNOWN = Path(__file__).parent / "known-secrets.json"
"""What was looked at and is none: by file, the digests that detect-secrets makes of it."""
NO_SOURCE = (".mo", ".png", ".svg", ".zst", ".min.js")
OURS = re.compile(r"\bhf_[A-Za-z0-9]{34}\b|\bevy_[A-Za-z0-9_-]{43}\b")
"""Tokens that detect-secrets does not know by itself: the Hub's, and Evalyard's own."""
NOISE = frozenset({"IPPublicDetector", "KeywordDetector"})


def settings() -> dict[str, Any]:
    """Every detector that knows a form, and what keeps them from taking placeholders for secrets."""
    kinds: list[type[Any]] = list(get_mapping_from_secret_type_to_class().values())
    names = sorted(
        kind.__name__ for kind in kinds if issubclass(kind, RegexBasedDetector) and kind.__name__ not in NOISE
    )
    heuristics = ("is_sequential_string", "is_templated_secret", "is_prefixed_with_dollar_sign")
    return {
        "plugins_used": [{"name": name} for name in names],
        # Never verified: a secret that is found is not sent anywhere.
        "filters_used": [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in heuristics],
    }


def find(root: Path = ROOT) -> list[str]:
    """A sentence for each tracked file that holds what looks like a secret and is not known to be none."""
    known = json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.is_file() else {}
    return [
        f"{file}:{line}: this looks like a secret ({kind}). Take it out and revoke it; if it is none, add {digest} to "
        f"{KNOWN.relative_to(ROOT)}."
        for file, line, kind, digest in scan(root)
        if digest not in known.get(file, ())
    ]


def scan(root: Path) -> Iterator[tuple[str, int, str, str]]:
    """File, line, kind and digest of everything that looks like a secret."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    with transient_settings(settings()):
        from detect_secrets.core.scan import get_plugins  # type: ignore[attr-defined]  # what its own scan uses

        patterns = [one for plugin in get_plugins() for one in getattr(plugin, "denylist", ())]
        found = SecretsCollection(root=str(root))
        for name in sorted(filter(None, listed.split("\0"))):
            path = root / name
            if name.endswith(NO_SOURCE) or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for token in OURS.finditer(text):
                digest = hashlib.sha1(token[0].encode(), usedforsecurity=False).hexdigest()
                yield name, text.count("\n", 0, token.start()) + 1, "Token of the Hub or of Evalyard", digest
            if any(pattern.search(text) for pattern in patterns):
                found.scan_file(name)
        for file, secret in found:
            yield file, secret.line_number, secret.type, secret.secret_hash
