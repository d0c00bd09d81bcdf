"""The command line of somebody who has an account."""

import io

import pytest

from tests.hub_stub import HubStub
from tests.submissions.command import Command
from tests.submissions.people.conftest import SignIn


@pytest.fixture
def signed_in(evalyard: Command, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Command:
    """The command, logged in as ada by a token on standard input."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("EVALYARD_TOKEN", raising=False)
    assert "Sign in first" in evalyard("whoami").err
    monkeypatch.setattr("sys.stdin", io.StringIO(sign_in("ada").token() + "\n"))
    assert evalyard("login").out.startswith("You are ada (submitter)")
    return evalyard


def test_a_token_is_kept_used_handed_on_and_forgotten(signed_in: Command) -> None:
    assert signed_in("whoami").out == "ada (submitter), with read, submit\n"
    secret = signed_in("token", "create", "ci", "--scope", "read").out.strip()
    assert secret.startswith("evy_")
    listed = signed_in("token", "list")
    assert "ci" in listed.out
    assert secret not in listed.out
    assert listed.out.splitlines()[-1].endswith(" UTC"), "when it expires, as people write it"
    assert "Revoked token 2 (ci)" in signed_in("token", "revoke", "2").out
    assert "This is for admins" in signed_in("people").err
    signed_in("logout")
    assert "Sign in first" in signed_in("whoami").err


def test_what_is_no_token_is_refused_before_it_is_kept(signed_in: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("my password\n"))
    assert "That is no token of Evalyard" in signed_in("login").err
    monkeypatch.setattr("sys.stdin", io.StringIO("evy_" + "A" * 43 + "\n"))
    assert "not one of this site's" in signed_in("login").err
    assert signed_in("whoami").out.startswith("ada")


@pytest.mark.parametrize("command", [("login",), ("hub-token", "save"), ("notify", "webhook")])
def test_an_empty_standard_input_is_said_in_our_words(
    signed_in: Command, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    told = signed_in(*command)
    assert told.code == 1
    assert "standard input is empty. Give it there" in told.err


def test_a_token_of_the_hub_is_read_from_standard_input_and_never_printed(
    signed_in: Command, hf_hub: HubStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub.readers["hf_SECRETsecret"] = set()
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_SECRETsecret\n"))
    assert "no token of the Hub" in signed_in("hub-token").out
    saved = signed_in("hub-token", "save")
    assert (saved.code, "ada-on-the-hub" in saved.out) == (0, True)
    assert signed_in("hub-token", "--json").json["account"] == "ada-on-the-hub"
    forgotten = signed_in("hub-token", "forget")
    assert forgotten.code == 0
    assert signed_in("hub-token", "forget").code == 1
    assert "SECRET" not in saved.out + saved.err + forgotten.out
    assert signed_in("hub-token", "save", "hf_SECRETsecret").code == 2, "no argument: others would see it"
