"""Commands of sites with accounts: `login`, `logout`, `whoami`, `token`, `notify`, `people`, `person`."""

import re
import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from orchestrator.program import program
from submissions import words
from submissions.cli.client import Client
from submissions.cli.credentials import keep_token
from submissions.cli.output import answer, answer_json, answer_table, chat, complain

commands = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]
TOKEN = re.compile(r"evy_[A-Za-z0-9_-]{43}")
SCOPES = ("read", "submit", "operate")


class NotifyAction(StrEnum):
    LIST = "list"
    MAIL = "mail"
    WEBHOOK = "webhook"
    OFF = "off"


class TokenAction(StrEnum):
    LIST = "list"
    CREATE = "create"
    REVOKE = "revoke"


@commands.command()
def login() -> None:
    """Keep a token for the hub, so that the commands act as you. It is asked for, and never an argument.

    Make one at the site under /account. In scripts set EVALYARD_TOKEN instead, or give the token on standard input.

    \b
    evalyard login
    EVALYARD_URL=https://evals.example.org evalyard login < token.txt
    """
    client = Client(token="")
    if sys.stdin.isatty():
        chat(f"Make a token at {client.page('/account')}.")
    secret = secret_line("Token")
    if not TOKEN.fullmatch(secret):
        complain("That is no token of Evalyard: one begins with evy_ and has 47 characters. Copy it whole.")
        raise typer.Exit(1)
    account = Client(client.url, token=secret).get("/account")
    path = keep_token(client.url, secret)
    answer(f"You are {account['name']} ({account['role']}) at {client.url}.")
    chat(f"The token is kept in {path}, for you alone. Forget it: {program()} logout")


@commands.command()
def logout() -> None:
    """Forget the token that was kept for the hub. To end it everywhere, revoke it."""
    client = Client(token="")
    keep_token(client.url, None)
    answer(f"Forgot the token for {client.url}. It is still good elsewhere: revoke it at {client.page('/account')}.")


@commands.command()
def whoami(as_json: AsJson = False) -> None:
    """Say who the hub takes you for, and what you may do there."""
    account = Client().get("/account")
    if as_json:
        answer_json(account)
    elif not account["has_accounts"]:
        answer("This site has no accounts: whoever uses it on its machine may do everything.")
    else:
        teams = f", in {', '.join(account['teams'])}" if account["teams"] else ""
        answer(f"{account['name']} ({account['role']}{teams}), with {', '.join(account['scopes'])}")


@commands.command()
def token(
    action: Annotated[TokenAction, typer.Argument(metavar="list|create|revoke", help="What to do.")] = TokenAction.LIST,
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="Name of a new token; number of one to revoke.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(SCOPES), help="What a new one may be used for; several times for several."),
    ] = None,
    days: Annotated[int, typer.Option(min=0, help="How long a new one is good for; 0 for ever.")] = 90,
    as_json: AsJson = False,
) -> None:
    """List your tokens, make one, revoke one. A new one can do no more than the one you use.

    \b
    evalyard token create ci --scope read --scope submit --days 30
    evalyard token list
    evalyard token revoke 4
    """
    client = Client()
    if action is TokenAction.LIST:
        if name:
            raise typer.BadParameter("list shows all and takes no name.")
        found = client.get("/tokens")
        answer_json(found) if as_json else _answer_tokens(found)
        return
    if not name:
        raise typer.BadParameter("Name the token." if action is TokenAction.CREATE else "Give the token's number.")
    if action is TokenAction.REVOKE:
        if not name.isdigit():
            raise typer.BadParameter(f"'{name}' is no number. `{program()} token list` shows them.")
        answered = client.delete(f"/tokens/{name}")
        answer_json(answered) if as_json else answer(answered["message"])
        return
    if wrong := [one for one in scope or () if one not in SCOPES]:
        raise typer.BadParameter(f"'{wrong[0]}' is no scope. Choose among {', '.join(SCOPES)}.", param_hint="--scope")
    made = client.post("/tokens", {"name": name, "scopes": scope or ["read", "submit"], "days": days or None})
    if as_json:
        answer_json(made)
    else:
        chat(made["message"])
        answer(made["secret"])


@commands.command()
def notify(
    action: Annotated[
        NotifyAction, typer.Argument(metavar="list|mail|webhook|off", help="How to be told, or no more.")
    ] = NotifyAction.LIST,
    kind: Annotated[str, typer.Argument(metavar="mail|webhook", help="With off: what to end.")] = "",
    as_json: AsJson = False,
) -> None:
    """Be told by mail or webhook when an evaluation of yours has ended.

    A webhook's address is a secret: it is asked for, or read from standard input, and never an argument. Mail goes
    to the address that your provider has verified.

    \b
    evalyard notify
    evalyard notify webhook < address.txt
    evalyard notify mail
    evalyard notify off webhook
    """
    client = Client()
    if action is NotifyAction.LIST:
        found = client.get("/account/targets")
        if as_json:
            answer_json(found)
        elif not found:
            answer("You are told nothing yet.")
        else:
            answer_table((("By", "left"), ("Address", "left")), [(one["kind"], one["address"]) for one in found])
        for one in found if not as_json else ():
            if one.get("trouble"):
                chat(f"The last message by {one['kind']} was not taken, and is tried again: {one['trouble']}")
        return
    if action is NotifyAction.OFF:
        if kind not in ("mail", "webhook"):
            raise typer.BadParameter("Say which: mail or webhook.")
        answered = client.delete(f"/account/targets/{kind}")
    else:
        asked = {"url": secret_line("Address")} if action is NotifyAction.WEBHOOK else {}
        answered = client.put(f"/account/targets/{action.value}", asked)
    answer_json(answered) if as_json else answer(answered["message"])


def secret_line(prompt: str) -> str:
    """What somebody types unseen, or the first line of standard input; where that is empty, it is said."""
    if sys.stdin.isatty():
        return str(typer.prompt(prompt, hide_input=True, err=True)).strip()
    if not (line := sys.stdin.readline().strip()):
        complain(
            f"{prompt}: standard input is empty. Give it there, on one line, or run this in a terminal to be asked."
        )
        raise typer.Exit(1)
    return line


@commands.command()
def people(as_json: AsJson = False) -> None:
    """List who has signed in, with their roles. For admins."""
    client, found, after = Client(), [], 0
    while page := client.get("/people", after=after):
        found += page
        after = page[-1]["id"]
    if as_json:
        answer_json(found)
        return
    columns = (("ID", "right"), ("Name", "left"), ("Role", "left"), ("E-mail", "left"), ("Signed in", "left"))
    rows = [
        (
            str(one["id"]),
            one["name"],
            "blocked" if one["blocked"] else one["role"],
            one["email"] or "–",
            _moment(one["seen_at"]),
        )
        for one in found
    ]
    answer_table(columns, rows)


@commands.command()
def person(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the person: `evalyard people`.")],
    role: Annotated[str | None, typer.Option(metavar="submitter|operator|admin", help="What they are now on.")] = None,
    blocked: Annotated[
        bool | None, typer.Option("--block/--unblock", help="Keep them out: sessions and tokens end at once.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a person another role, or block them. For admins.

    \b
    evalyard person 3 --role operator
    evalyard person 4 --block
    """
    if role is None and blocked is None:
        raise typer.BadParameter("Say what to change: --role, --block or --unblock.")
    if role not in (None, "submitter", "operator", "admin"):
        raise typer.BadParameter(f"'{role}' is no role. Choose among submitter, operator, admin.", param_hint="--role")
    asked: dict[str, Any] = {"role": role, "blocked": blocked}
    given = {name: value for name, value in asked.items() if value is not None}
    answered = Client().post(f"/people/{number}", given)
    answer_json(answered) if as_json else answer(answered["message"])


def _answer_tokens(found: list[dict[str, Any]]) -> None:
    if not found:
        answer("You have no token.")
        return
    columns = (("ID", "right"), ("Name", "left"), ("Begins with", "left"), ("May", "left"), ("Expires", "left"))
    answer_table(
        columns,
        [
            (str(one["id"]), one["name"], one["prefix"], ", ".join(one["scopes"]), _moment(one["expires_at"]))
            for one in found
        ],
    )


def _moment(at: str | None) -> str:
    return words.moment(datetime.fromisoformat(at)) if at else "never"
