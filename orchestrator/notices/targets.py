"""The notifications file (`notifications.toml`): who is told what, by which address.

Read once at start. Addresses hold passwords and tokens: they never come into the database, a log or a sentence.
"""

import difflib
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from orchestrator.errors import SettingsError
from orchestrator.notices.events import EVENTS, Asker, wants
from orchestrator.settings import HubSettings

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")


class Target(BaseModel):
    """One address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Short and unique: what logs and the database call it."""
    url: SecretStr | None = None
    """Apprise's address of a service, such as `mailtos://…` or `jsons://…`."""
    url_file: Path | None = None
    """File that holds the address instead, such as a mounted secret."""
    events: tuple[str, ...] = ()
    """Names or patterns (`rerun_*`) of what is told; all but single evaluations of re-runs where none is named."""
    submitters: tuple[str, ...] = ()
    """Tell only of evaluations that one of these asked for, by subject or verified e-mail address as `/account` shows
    them (without accounts `local`); of everything where none is named."""

    @field_validator("name")
    @classmethod
    def _is_short(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("write a name of small letters, digits, dots, dashes, at most 60")
        return name

    @field_validator("events")
    @classmethod
    def _are_known(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in events:
            if not any(fnmatchcase(event, pattern) for event in EVENTS):
                near = difflib.get_close_matches(pattern, EVENTS, n=1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(EVENTS)}"
                raise ValueError(f"nothing is called '{pattern}': {meant}")
        return events

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give either url or url_file")
        return self

    def wants(self, event: str, *, asker: Asker) -> bool:
        """Whether it is told of an event of an evaluation that `asker` asked for."""
        return wants(self.events, event) and (not self.submitters or not asker.names.isdisjoint(self.submitters))

    def address(self) -> str:
        """The service's address.

        Raises:
            SettingsError: its file cannot be read.
        """
        if self.url is not None:
            return self.url.get_secret_value()
        assert self.url_file is not None
        try:
            return self.url_file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"The address of target '{self.name}' cannot be read from {self.url_file}.") from error


class Targets(NamedTuple):
    """Who is told, and where links lead."""

    targets: tuple[Target, ...] = ()
    site: str = ""
    mail: SecretStr | None = None
    """The server that mail to people's own addresses goes through, as Apprise's address without whom it is to."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str = ""
    mail: SecretStr | None = None
    mail_file: Path | None = None
    target: tuple[Target, ...] = Field(default=())

    @field_validator("mail")
    @classmethod
    def _is_a_mail_server(cls, mail: SecretStr) -> SecretStr:
        if urlsplit(mail.get_secret_value()).scheme not in ("mailto", "mailtos"):
            raise ValueError("write the mail server as mailtos://user:password@mail.example.org?from=…")
        return mail

    @field_validator("site")
    @classmethod
    def _is_an_address(cls, site: str) -> str:
        if site and urlsplit(site).scheme not in ("http", "https"):
            raise ValueError("write the site's address as people open it, https://…")
        return site


def read_hub_targets(hub: HubSettings) -> Targets:
    """Every target of this hub; none without a file.

    Raises:
        SettingsError: as `read_targets` does.
    """
    if hub.notifications_file is None:
        return Targets()
    found = read_targets(hub.notifications_file)
    return found if found.site else found._replace(site=hub.public_url)


def read_targets(path: Path) -> Targets:
    """Every target of the file.

    Raises:
        SettingsError: the file cannot be read, or something in it cannot be; no sentence shows an address.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The notifications file {path} cannot be read.") from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)", str(error))
        raise SettingsError(f"The notifications file {path} is no TOML{f' {place[0]}' if place else ''}.") from None
    try:
        file = _File.model_validate(found)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_sentence(error)}") from None
    names = [target.name for target in file.target]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{path}: two targets are named {twice[0]}. Give each a name of its own.")
    return Targets(file.target, file.site, _mail(file, path))


def _mail(file: _File, path: Path) -> SecretStr | None:
    if file.mail_file is None:
        return file.mail
    try:
        return _File(mail=SecretStr(file.mail_file.expanduser().read_text(encoding="utf-8").strip())).mail
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise SettingsError(f"{path}: the mail server cannot be read from {file.mail_file}.") from error


def _sentence(error: ValidationError) -> str:
    """What is wrong first, without the value."""
    detail: Any = error.errors(include_input=False, include_url=False)[0]
    place = " ".join(str(step + 1) if isinstance(step, int) else str(step) for step in detail["loc"])
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        known = Target.model_fields if len(detail["loc"]) > 1 else _File.model_fields
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "docs/notifications.md lists them."
        return f"there is no setting {place}. {hint}"
    if detail["type"] == "value_error":
        return f"{place}: {detail['ctx']['error']}."
    return f"{place}: {detail['msg']}."
