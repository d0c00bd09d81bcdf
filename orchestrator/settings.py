"""The hub's settings: one typed record, read once at start from EVALYARD_* variables and passed on from there.

Nothing is read at import. A variable that no process knows, or two that contradict each other, stop the start.
"""

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError
from orchestrator.reruns.policy import Policy as RerunPolicy
from orchestrator.wire import EngineFamily

PREFIX = "EVALYARD_"
OF_OTHERS = frozenset(
    {"EVALYARD_URL", "EVALYARD_TOKEN", "EVALYARD_CACHE", "EVALYARD_SUPERVISED", "EVALYARD_MEMORY_BYTES"}
)
"""Variables of the command line and of stage programs: known here so that they do not stop the hub."""
OTHERS_PREFIXES = ("EVALYARD_WORKER_", "EVALYARD_TEST_")


class HubSettings(BaseSettings):
    """What the web and control processes need to know."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    data: Path
    """Folder of everything the hub keeps: database, artifacts, logs; the platform's user data folder by default."""
    database_url: str = Field(default="", repr=False)
    """SQLAlchemy URL, `sqlite:///…` or `postgresql://…`; an SQLite file in the data folder by default."""
    broker_url: str = Field(default="", repr=False)
    """`redis://…` of a Valkey or Redis server (6.2 or later); `evalyard up` starts one and fills it in."""
    artifacts_url: str = Field(default="", repr=False)
    """Where sheets, segments and results are kept, as an fsspec URL; a folder in the data folder by default."""
    engine: EngineFamily = EngineFamily.VLLM
    """Engine family of new evaluations."""
    suites: Path | None = None
    """Folder with further suite files (*.toml), and with lm-eval task files of your own in `tasks/`."""
    datasets: Path | None = None
    """Mirror of Hub datasets, laid out `org/name/`."""
    models: Path | None = None
    """Mirror of Hub models, laid out `org/name/`."""
    harnesses: Path | None = None
    """Folder of harness environments (`evalyard harness`); `harnesses` in the user data folder by default."""
    host: str = "127.0.0.1"
    """Address of the web server; another than a loopback address needs accounts (docs/accounts.md)."""
    port: int = Field(default=8765, ge=0, le=65535)
    """Port of the web server; 0 takes a free one."""
    lease_seconds: float = Field(default=60.0, gt=0)
    """An attempt without a heartbeat for this long is given up and its job queued again."""
    tick_seconds: float = Field(default=1.0, gt=0)
    """Pause between two rounds of dispatching and looking for ended leases."""
    clusters: Path | None = None
    """Clusters file: where the hub may launch workers by itself (docs/slurm.md, docs/kubernetes.md); `clusters.toml` in
    the data folder by default, if it is there."""
    notifications: Path | None = None
    """Notifications file: who is told what by mail or webhook (docs/notifications.md); `notifications.toml` in the data
    folder by default, if it is there."""
    rerun_policy: RerunPolicy = RerunPolicy.OFF
    """What the hub does when a newer harness is installed or a suite file has a new version: `off`, `plan` (make a plan
    and ask an operator), or `start` (start it, too, where no engine is needed)."""
    canary_mean: float = Field(default=0.2, ge=0)
    """How far an engine's log-likelihoods may be from the canary's stored ones on average, in nats, before workers with
    it are kept out (docs/canary.md)."""
    canary_choices: float = Field(default=0.2, ge=0, le=1)
    """Share of the canary's documents whose choice may change."""
    canary_texts: float = Field(default=0.6, ge=0, le=1)
    """Share of the canary's generated texts that may change."""
    gpu_share: float = Field(default=1.0, gt=0, le=1)
    """Largest part of all workers' GPUs that may be in use at a time: 0.5 leaves half of them."""
    hub_token: SecretStr | None = None
    """Read token for gated weights, never stored and in no message; `evalyard up` hands it to its workers."""
    publish_token: SecretStr | None = None
    """Token of the Hub that may write, for `evalyard publish hf://…`, and for `import` without a Hub token; never
    stored."""

    login_issuer: str = ""
    """Address of the OpenID Connect provider that people sign in with, such as `https://huggingface.co`. Without it
    there are no accounts: the site is for one person, on this machine."""
    login_client_id: str = ""
    """Name of this site at the provider."""
    login_client_secret: SecretStr | None = None
    """Its secret there; a public client has none."""
    login_teams: str = ""
    """Claim of the provider that lists a person's teams; `orgs` at Hugging Face, elsewhere `groups`, by default."""
    login_members: str = ""
    """Teams, separated by commas, whose members alone may sign in; whoever the provider knows may, by default."""
    admins: str = ""
    """Who is an admin from their sign-in on: subjects or verified e-mail addresses, separated by commas."""
    public_url: str = ""
    """Address that browsers reach the site by, such as `https://evals.example.org`; needed with accounts."""
    trusted_proxies: str = ""
    """Addresses and networks, separated by commas, of proxies whose `X-Forwarded-For` is believed, such as
    `10.0.0.0/8`; one on the same host always is. Sign-ins are counted by the address that it names."""
    webhook_hosts: str = ""
    """Hosts, separated by commas, that people's own webhooks may reach though they are in a private network or speak
    http, such as `hooks.corp.example`; all others must be public and https."""
    secret_key: SecretStr | None = None
    """At least 32 characters, for the digests of tokens and sessions and for what is kept encrypted; a file in the data
    folder, made at the first start, by default. Give it where web and control processes share no folder."""
    submissions_per_day: int = Field(default=50, ge=0)
    """New evaluations that a person may ask for within 24 hours; 0 for any number. Only with accounts."""
    team_submissions_per_day: int = Field(default=0, ge=0)
    """New evaluations that the members of one team may ask for within 24 hours, all together; 0 for any number."""

    denied_models: str = ""
    """Models that are not evaluated here, nor adapters on them, separated by commas: `org/name`, or `org/*` for all of
    an organisation. Upper and lower case are the same. A repository is denied by the name that the Hub has for it now,
    and by an old one where that is what was asked for: when one is renamed, list the new name too."""
    private_models: str = ""
    """Who, besides operators, may submit private repositories that the Hub token reads: `organisation=team` pairs,
    separated by commas; the team's members may submit that organisation's. Only with accounts."""
    organisation_submissions_per_week: int = Field(default=0, ge=0)
    """New evaluations of one Hub organisation's models within seven days, whoever asks; 0 for any number. Official
    providers' and what operators ask for are not limited."""
    card_characters: int | None = Field(default=None, ge=0)
    """Length that the model card of a Hub repository must have; 0 asks for none. 200 with accounts, 0 without."""
    need_licence: bool | None = None
    """Whether a Hub repository must name a licence: a tag, or name and link. By default with accounts only."""

    official_providers: str = ""
    """Organisations whose models the board can be narrowed to, separated by commas, as in `meta-llama/Llama-3.1-8B`."""
    device_watts: float = Field(default=700.0, gt=0)
    """Of one GPU with its share of the host, for the board's CO₂ column."""
    carbon_grams_per_kwh: float = Field(default=269.8, ge=0)
    """Of the electricity that the workers use, for the board's CO₂ column."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Defaults that follow from the data folder."""
        data = Path(values.get("data") or platformdirs.user_data_dir("evalyard", appauthor=False))
        data = data.expanduser().resolve()
        return values | {
            "data": data,
            "database_url": values.get("database_url") or f"sqlite:///{data / 'evalyard.db'}",
            "artifacts_url": values.get("artifacts_url") or (data / "artifacts").as_uri(),
        }

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.database_url.split(":", 1)[0].split("+", 1)[0] not in ("sqlite", "postgresql", "postgres"):
            raise ValueError("EVALYARD_DATABASE_URL must begin with sqlite:/// or postgresql://.")
        if "://" not in self.artifacts_url:
            raise ValueError("EVALYARD_ARTIFACTS_URL must be a URL such as file:///srv/evalyard or s3://bucket/prefix.")
        if self.broker_url and not self.broker_url.startswith(("redis://", "rediss://", "memory://")):
            raise ValueError("EVALYARD_BROKER_URL must begin with redis:// or rediss://; Valkey speaks the same.")
        if self.lease_seconds < 3 * self.tick_seconds:
            raise ValueError(
                f"A lease of {self.lease_seconds:g} s is too short for a tick of {self.tick_seconds:g} s: set "
                "EVALYARD_LEASE_SECONDS to at least three times EVALYARD_TICK_SECONDS."
            )
        self._check_accounts()
        for part in filter(str.strip, self.private_models.split(",")):
            if not all(map(str.strip, part.partition("="))):
                raise ValueError(f"EVALYARD_PRIVATE_MODELS: '{part.strip()[:60]}' is no pair. Write organisation=team.")
        for name in ("suites", "datasets", "models"):
            folder: Path | None = getattr(self, name)
            if folder is not None and not folder.is_dir():
                raise ValueError(f"{PREFIX}{name.upper()}: there is no folder {folder}. Create it or unset it.")
        if self.clusters is not None and not self.clusters.is_file():
            raise ValueError(f"EVALYARD_CLUSTERS: there is no file {self.clusters}. Write it or unset it.")
        if self.notifications is not None and not self.notifications.is_file():
            raise ValueError(f"EVALYARD_NOTIFICATIONS: there is no file {self.notifications}. Write it or unset it.")
        return self

    def _check_accounts(self) -> None:
        if not self.has_accounts:
            given = [name for name in ("login_client_id", "login_client_secret", "public_url") if getattr(self, name)]
            if given:
                raise ValueError(
                    f"{PREFIX}{given[0].upper()} is for accounts, and EVALYARD_LOGIN_ISSUER, which makes them, is not "
                    "set. docs/accounts.md says what goes together."
                )
            if not is_loopback(self.host):
                raise ValueError(
                    f"EVALYARD_HOST={self.host} would open the site to the network, and it has no accounts. "
                    "Use 127.0.0.1, or set up accounts: docs/accounts.md."
                )
            return
        for name in ("login_client_id", "public_url"):
            if not getattr(self, name):
                raise ValueError(f"Accounts need {PREFIX}{name.upper()} too: docs/accounts.md says what to put there.")
        for name in ("login_issuer", "public_url"):
            parts = urlsplit(getattr(self, name))
            is_plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
            if not (parts.scheme == "https" or is_plain) or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"{PREFIX}{name.upper()} must be an https:// address; http:// is for loopback alone.")
        if urlsplit(self.public_url).path.strip("/"):
            raise ValueError("EVALYARD_PUBLIC_URL has a path; the site needs a host name of its own.")
        for part in filter(None, map(str.strip, self.trusted_proxies.split(","))):
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError(
                    f"EVALYARD_TRUSTED_PROXIES: '{part[:60]}' is no address or network. Write e.g. 10.0.0.0/8."
                ) from None
        if self.secret_key is not None and len(self.secret_key.get_secret_value()) < 32:
            raise ValueError("EVALYARD_SECRET_KEY is shorter than 32 characters. Take e.g. `openssl rand -hex 32`.")

    @property
    def has_accounts(self) -> bool:
        """Whether people sign in; without accounts the site is one person's, on this machine."""
        return bool(self.login_issuer)

    @property
    def official(self) -> frozenset[str]:
        """The official providers, in lower case."""
        return frozenset(name.strip().casefold() for name in self.official_providers.split(",") if name.strip())

    @property
    def open_webhook_hosts(self) -> frozenset[str]:
        """Hosts that people's own webhooks may reach whatever network they are in."""
        return frozenset(name.strip().lower() for name in self.webhook_hosts.split(",") if name.strip())

    @property
    def least_card(self) -> int:
        """Characters of the shortest model card that is accepted."""
        return self.card_characters if self.card_characters is not None else 200 * self.has_accounts

    @property
    def asks_licence(self) -> bool:
        return self.need_licence if self.need_licence is not None else self.has_accounts

    @property
    def denied(self) -> frozenset[str]:
        """The denied models, in lower case."""
        return frozenset(name.strip().casefold() for name in self.denied_models.split(",") if name.strip())

    @property
    def private_teams(self) -> frozenset[tuple[str, str]]:
        """Pairs of an organisation and a team that may submit its private models, in lower case, as teams are kept."""
        pairs = (part.partition("=") for part in self.private_models.lower().split(",") if part.strip())
        return frozenset((organisation.strip(), team.strip()) for organisation, _, team in pairs)

    @property
    def clusters_file(self) -> Path | None:
        """The clusters file that counts, if there is one."""
        if self.clusters is not None:
            return self.clusters
        usual = self.data / "clusters.toml"
        return usual if usual.is_file() else None

    @property
    def notifications_file(self) -> Path | None:
        """The notifications file that counts, if there is one."""
        if self.notifications is not None:
            return self.notifications
        usual = self.data / "notifications.toml"
        return usual if usual.is_file() else None


def read_settings(**given: Any) -> HubSettings:
    """Settings from the environment; `given` (from the command line) wins, None meaning not given.

    Raises:
        SettingsError: a variable is unknown, impossible or contradicts another one.
    """
    refuse_unknown(os.environ)
    try:
        return HubSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(" ".join(_sentence(detail) for detail in error.errors(include_input=False))) from error


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Stop at the first EVALYARD_* variable that no process of Evalyard reads.

    Raises:
        SettingsError: names the variable and the nearest known one.
    """
    known = {PREFIX + name.upper() for name in HubSettings.model_fields} | OF_OTHERS
    for variable in sorted(environment):
        name = variable.upper()
        if name.startswith(PREFIX) and name not in known and not name.startswith(OTHERS_PREFIXES):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "docs/settings.md lists the settings."
            raise SettingsError(f"There is no setting {variable}. {hint}")


def _sentence(detail: Any) -> str:
    """One sentence for one fault that pydantic found."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "extra_forbidden":
        return f"There is no setting {detail['loc'][0]}."
    variable = PREFIX + str(detail["loc"][0]).upper()
    given = os.environ.get(variable, "")[:40]
    shown = f"'{given}' is " if given else "its value is "
    if detail["type"] in ("int_parsing", "float_parsing"):
        return f"{variable}: {shown}no number. Write one in digits."
    if detail["type"] == "enum":
        near = difflib.get_close_matches(given, re.findall(r"'([^']*)'", detail["ctx"]["expected"]), n=1)
        meant = f" Did you mean '{near[0]}'?" if near else ""
        return f"{variable}: {shown}none of {detail['ctx']['expected']}.{meant}"
    return f"{variable}: {detail['msg'][0].lower()}{detail['msg'][1:]}."


def is_loopback(host: str) -> bool:
    """Whether a host's name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
