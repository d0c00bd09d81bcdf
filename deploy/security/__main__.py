"""Looks for secrets in the tree and for known holes in the pinned packages; fails for what it finds.

    python -m deploy.security [--need-advisories]

Secrets: detect-secrets over every tracked file (`deploy.security.secrets`).

Holes: pip-audit over each file of pinned requirements, without installing anything. It asks PyPI's advisories; where
they cannot be had, or know none of the packages, as with a mirror, nothing was audited: that is said in so many words,
and is a failure with `--need-advisories`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from deploy.security import secrets

ROOT = Path(__file__).resolve().parent.parent.parent
IGNORED = Path(__file__).parent / "ignored.toml"
REQUIREMENTS = ("cpu.txt", "cuda.txt", "dev.txt", "torch-cpu.txt")
AUDIT_SECONDS = 300


class Hole(NamedTuple):
    """One advisory that a pinned package falls under."""

    package: str
    version: str
    ids: tuple[str, ...]
    """All names of the advisory."""
    fixed: tuple[str, ...]


class Audit(NamedTuple):
    holes: list[Hole]
    known: int
    """Packages that the advisories know; none of them means that nothing was audited."""
    packages: int


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--need-advisories", action="store_true", help="fail where no advisories can be had")
    given = parser.parse_args()
    found = secrets.find()
    print("\n".join(found) or "No secret in any tracked file.", flush=True)
    audits = audit_all() if has_advisories() else []
    holes = {hole for audit in audits for hole in audit.holes}
    ignored = read_ignored(IGNORED.read_text(encoding="utf-8"))
    for sentence in (problems := judge(holes, ignored, today=date.today())):
        print(sentence)
    known, packages = sum(audit.known for audit in audits), sum(audit.packages for audit in audits)
    if not known or len(audits) < len(REQUIREMENTS):
        line = "!" * 100
        print(
            f"{line}\nNOT AUDITED for known holes: PyPI's advisories could not be had ({known} of {packages} packages)."
        )
        print(f"Before a release run `make security` where PyPI itself can be reached.\n{line}", flush=True)
        if given.need_advisories:
            return 1
    elif not problems:
        print(f"No known hole in {known} pinned packages that are not ignored with a reason.")
    return 1 if found or problems else 0


def has_advisories() -> bool:
    """Whether advisories can be had here: one package is asked about before hundreds are."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(f"pip-audit=={version('pip-audit')}\n")
        found = audit_file(one)
    return found is not None and found.known == 1


def audit_all() -> list[Audit]:
    """What is known of all pinned packages, by file; a file that could not be asked about is left out."""
    return [audit for name in REQUIREMENTS if (audit := audit_file(ROOT / "deploy" / "requirements" / name))]


def audit_file(requirements: Path) -> Audit | None:
    """What pip-audit knows of the pinned packages of a file; None where it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
        return read_audit(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        print(f"pip-audit could not ask for {requirements.name}.", flush=True)
        return None


def read_audit(found: Mapping[str, Any]) -> Audit:
    """pip-audit's JSON. Pure."""
    packages: Sequence[Mapping[str, Any]] = found["dependencies"]
    holes = [
        Hole(one["name"], one["version"], (hole["id"], *hole.get("aliases", ())), tuple(hole.get("fix_versions", ())))
        for one in packages
        for hole in one.get("vulns", ())
    ]
    return Audit(holes, known=sum("skip_reason" not in one for one in packages), packages=len(packages))


def read_ignored(text: str) -> dict[str, Mapping[str, Any]]:
    """The advisories that stand, by id.

    Raises:
        SystemExit: one has no package, date or reason.
    """
    listed = tomllib.loads(text).get("advisory", [])
    for one in listed:
        if not all((one.get("id"), one.get("package"), isinstance(one.get("until"), date), one.get("reason"))):
            raise SystemExit(f"{IGNORED.name}: an advisory needs id, package, until and reason: {one}")
    return {one["id"]: one for one in listed}


def judge(holes: Iterable[Hole], ignored: Mapping[str, Mapping[str, Any]], *, today: date) -> list[str]:
    """A sentence for each hole that nothing excuses. Pure."""
    sentences = []
    for hole in sorted(holes):
        excuse = next((ignored[name] for name in hole.ids if name in ignored), None)
        if excuse is not None and excuse["package"] == hole.package and excuse["until"] >= today:
            continue
        fixed = f"fixed in {', '.join(hole.fixed)}" if hole.fixed else "no version is fixed yet"
        late = " The reason that was given for it has run out." if excuse is not None else ""
        sentences.append(f"{hole.package} {hole.version}: {hole.ids[0]}, {fixed}.{late}")
    return sentences


if __name__ == "__main__":
    sys.exit(main())
