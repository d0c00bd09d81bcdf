"""The security checks fail for what they find, and say so where they could not look."""

import json
import subprocess
from datetime import date
from pathlib import Path

import pytest

from deploy.security import secrets
from deploy.security.__main__ import Hole, judge, read_audit, read_ignored

TODAY = date(2026, 6, 1)
HOLE = Hole("jinja2", "3.0.0", ("PYSEC-1", "CVE-2026-1"), ("3.0.1",))
# Put together here, so that this file holds none itself.
PLANTED = {
    "key.pem": "-----BEGIN RSA " + "PRIVATE KEY-----\n",
    "aws.py": 'KEY = "AKIA' + 'QYLPMN5HFIQR7BBB"\n',
    "hub.env": "HF_TOKEN=hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH\n",
    "mail.toml": 'url = "mailtos://bot:' + 'Xk29-tQ@mail.example.org"\n',
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_secret_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PLANTED[name])
    (tmp_path / "plain.py").write_text("password = read_password()\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (found,) = secrets.find(tmp_path)
    assert found.startswith(f"{name}:1: this looks like a secret")
    assert PLANTED[name].strip() not in found


def test_the_tree_holds_no_secret() -> None:
    assert secrets.find() == []


def test_a_hole_fails_unless_a_reason_stands_for_it() -> None:
    assert judge([HOLE], {}, today=TODAY) == ["jinja2 3.0.0: PYSEC-1, fixed in 3.0.1."]
    entry = '[[advisory]]\nid = "CVE-2026-1"\npackage = "{}"\nuntil = {}\nreason = "x"\n'
    assert judge([HOLE], read_ignored(entry.format("jinja2", "2026-12-31")), today=TODAY) == []
    assert "has run out" in judge([HOLE], read_ignored(entry.format("jinja2", "2026-01-01")), today=TODAY)[0]
    assert judge([HOLE], read_ignored(entry.format("flask", "2026-12-31")), today=TODAY)
    with pytest.raises(SystemExit):
        read_ignored('[[advisory]]\nid = "CVE-2026-1"\n')


def test_packages_that_no_advisory_knows_count_as_not_audited() -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "X", "aliases": ["Y"], "fix_versions": []}]}
    found = read_audit(
        json.loads(json.dumps({"dependencies": [vulnerable, {"name": "b", "skip_reason": "not found"}]}))
    )
    assert (found.holes, found.known, found.packages) == ([Hole("a", "1", ("X", "Y"), ())], 1, 2)
