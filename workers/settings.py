"""A worker's settings: one typed record, read once at start from EVALYARD_* variables and passed on from there.

A worker knows the broker and the artifact store, and never the database.
"""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from tzlocal import get_localzone

from orchestrator.wire import EngineFamily
from workers.harnesses import environments
from workers.idle.idleness import GpuPolicy
from workers.idle.windows import ALWAYS, WindowError, Windows, read_windows
from workers.setting_words import fault, not_json, unknown_variable

PREFIX = "EVALYARD_"

SECRET = frozenset({"broker_url", "artifacts_url", "hub_token"})
"""Settings whose values are never repeated."""


class WorkerSettingsError(Exception):
    """A setting is missing, unknown or impossible; the worker must not start."""


class WorkerSettings(BaseSettings):
    """What a worker process needs to know. Names in `worker_…` are its own, the others are the hub's too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    broker_url: str = Field(repr=False)
    """`redis://…` of the hub's Valkey or Redis server."""
    artifacts_url: str = Field(repr=False)
    """Where sheets, segments and results are kept: the same store as the hub's, as an fsspec URL."""
    engine: EngineFamily = EngineFamily.VLLM
    """Engine family of an engine worker."""
    datasets: Path | None = None
    """Mirror of Hub datasets, laid out `org/name/`."""
    models: Path | None = None
    """Mirror of Hub models, laid out `org/name/`."""
    harnesses: Path = Field(default_factory=environments.default_folder)
    """Folder of harness environments (`evalyard harness`), for all workers of the host."""
    hub_token: SecretStr | None = None
    """Read token for gated weights, this host's own: no message carries it, and no stage program sees it."""

    worker_kind: Literal["harness", "engine"]
    """`harness` prepares and scores, `engine` infers; given on the command line."""
    worker_name: str = ""
    """Unique among all workers, and the name of its queue; the host's name and the kind by default."""
    worker_host: str = ""
    """What its host is called, in a cluster by the cluster; the host's own name by default. Where it is given, all
    workers of a kind on that host are held back together, whatever they are called: for pods, whose names are new each
    time."""
    worker_slots: int | None = Field(default=None, ge=1, le=256)
    """Stages at the same time: 1 by default. An engine worker on GPUs has as many as it sees GPUs, and with a number
    uses no more than the first so many of them."""
    worker_engine_settings: dict[str, Any] = {}
    """Engine settings of this host, as a JSON object; an order's own settings win."""
    worker_scratch: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir("evalyard", appauthor=False)))
    """Folder for inputs and outputs of running stages, emptied after each; needs room for segments, not for weights."""
    worker_weights: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("evalyard", appauthor=False)) / "weights"
    )
    """Folder for what is downloaded from the Hub, for all workers of the host. Models that lie in the user's own Hub
    cache are used from there. Give it a folder of its own: the worker deletes what was used longest ago."""
    worker_weights_bytes: ByteSize | None = Field(default=None, gt=0)
    """How much downloads may take, such as `500GB` or `2TiB`; by default a tenth of the disk stays free, or 20 GB if
    that is less."""
    worker_task_folders: tuple[Path, ...] = ()
    """Further folders with lm-eval task files, as a JSON list."""
    worker_heartbeat_seconds: float = Field(default=3.0, gt=0, le=20)
    """Pause between two heartbeats; well below the hub's lease."""
    worker_grace_seconds: float = Field(default=20.0, ge=0)
    """How long a stage may take to seal and end once it is asked to."""
    worker_seal_seconds: float | None = Field(default=None, gt=0)
    """Pause between two segments; what the order says by default. Longer where the artifact store is slow."""
    worker_hang_seconds: float | None = Field(default=None, gt=0)
    """How long an engine may take for one step before it is ended and started again; what the order says (10 minutes)
    by default."""
    worker_warm_seconds: float = Field(default=60.0, ge=0)
    """How long an engine stays up when its work has ended well, for the next work of its model; 0 never keeps one."""
    worker_until_idle_seconds: float | None = Field(default=None, gt=0)
    """A worker that has had nothing to do for so long ends itself: for workers on GPUs that a cluster lends."""
    worker_until: datetime | None = None
    """When this worker's host is taken away, as a Unix time or with its zone: for workers on GPUs that a cluster lends
    for a limited time. What would not get on by then is not given to it."""
    worker_memory_bytes: int | None = Field(default=None, gt=0)
    """Address space of a harness stage; the host's memory by default."""
    worker_gpu_policy: Literal["idle", "always"] | None = None
    """`idle` uses a GPU only while nobody else does, `always` is for GPUs that are this worker's alone; by default
    `idle`, and `always` where a cluster's launcher started the worker."""
    worker_gpu_idle_seconds: float = Field(default=300.0, ge=0)
    """How long a GPU must have been idle before it is used."""
    worker_gpu_memory_bytes: ByteSize = Field(default=ByteSize(500_000_000), gt=0)
    """An idle GPU has less memory in use, such as `500MB`."""
    worker_gpu_utilisation: float = Field(default=5.0, ge=0, le=100)
    """Percent; an idle GPU is no busier."""
    worker_gpu_sample_seconds: float = Field(default=2.0, gt=0, le=10)
    """Pause between two looks at the GPUs: so much later one is given back when others come."""
    worker_gpus_left_free: int = Field(default=0, ge=0)
    """GPUs of this host that nobody uses and that stay so, for others to find."""
    worker_gpus: str = "nvml"
    """Where GPUs are looked at: `nvml`, the driver; or `fake:PATH`, a JSON file, for tests and demonstrations."""
    worker_windows: str = ""
    """When an engine worker may compute, such as `Mon-Fri 20:00-07:00; Sat,Sun 00:00-24:00`; always by default."""
    worker_time_zone: str = ""
    """Time zone of the windows, such as `Europe/Berlin`; the host's by default."""

    @field_validator("worker_name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"{name!r} is no name for a worker. Take letters, digits, dot, dash and underscore, at most 100"
            )
        return name

    @field_validator("worker_until")
    @classmethod
    def _zoned(cls, until: datetime | None) -> datetime | None:
        return until.replace(tzinfo=UTC) if until is not None and until.tzinfo is None else until

    @field_validator("worker_gpus")
    @classmethod
    def _source(cls, source: str) -> str:
        if source != "nvml" and not (source.startswith("fake:") and source != "fake:"):
            raise ValueError(f"'{source}' is neither nvml nor fake:PATH")
        return source

    @model_validator(mode="after")
    def _readable(self) -> Self:
        try:
            _ = self.windows
        except WindowError as error:
            raise ValueError(f"EVALYARD_WORKER_WINDOWS: {error}") from error
        except (ValueError, LookupError, OSError) as error:
            raise ValueError(
                f"EVALYARD_WORKER_TIME_ZONE: this host knows no time zone '{self.worker_time_zone}'. Zones are called "
                "like Europe/Berlin or UTC; where none is known, the package tzdata is missing."
            ) from error
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.worker_weights.absolute().is_relative_to(self.scratch.absolute()):
            raise ValueError(
                f"EVALYARD_WORKER_WEIGHTS={self.worker_weights} lies in this worker's scratch folder {self.scratch}, "
                "which is emptied at each start. Choose another folder, or another name for the worker."
            )
        return self

    @property
    def name(self) -> str:
        return self.worker_name or f"{host_name()}-{self.worker_kind}"

    @property
    def host(self) -> str:
        return self.worker_host or host_name()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never leave this process as text."""
        token = self.hub_token.get_secret_value() if self.hub_token else ""
        return tuple(filter(None, (token, urlsplit(self.broker_url).password, self.broker_url)))

    @property
    def scratch(self) -> Path:
        """This worker's own scratch folder."""
        return self.worker_scratch / self.name

    @property
    def windows(self) -> Windows:
        """When the worker may compute.

        Raises:
            WindowError: they cannot be read; not after the settings were made.
        """
        if not self.worker_windows and not self.worker_time_zone:
            return ALWAYS
        return read_windows(self.worker_windows, ZoneInfo(self.worker_time_zone or get_localzone().key))

    @property
    def fake_gpus(self) -> Path | None:
        """The file of fake GPUs, where they are fake."""
        kind, _, path = self.worker_gpus.partition(":")
        return Path(path) if kind == "fake" else None

    @property
    def gpu_policy(self) -> GpuPolicy:
        launched = "idle" if self.worker_until_idle_seconds is None else "always"
        return GpuPolicy(
            is_always=(self.worker_gpu_policy or launched) == "always",
            idle_seconds=self.worker_gpu_idle_seconds,
            memory_bytes=self.worker_gpu_memory_bytes,
            utilisation=self.worker_gpu_utilisation,
            left_free=self.worker_gpus_left_free,
        )

    @property
    def memory_bytes(self) -> int | None:
        """Limit for a harness stage. An engine maps weights and reserves addresses freely: it has none."""
        if self.worker_kind == "engine":
            return None
        return self.worker_memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_worker_settings(*, kind: str, **given: object) -> WorkerSettings:
    """Settings from the environment; `given` (from the command line) wins, None meaning not given.

    Raises:
        WorkerSettingsError: one is missing, unknown or impossible.
    """
    known = {PREFIX + name.upper() for name in WorkerSettings.model_fields}
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX + "WORKER_") and variable not in known:
            raise WorkerSettingsError(unknown_variable(variable, known))
    values = {name: value for name, value in given.items() if value is not None}
    try:
        return WorkerSettings(worker_kind=kind, **values)  # type: ignore[arg-type]  # pydantic checks the types
    except ValidationError as error:
        faults = [fault(dict(detail), prefix=PREFIX, secret=SECRET) for detail in error.errors(include_url=False)]
        raise WorkerSettingsError(" ".join(faults)) from None  # the cause would repeat what was given
    except SettingsError as error:
        # Raised before validation, with the field's name in its text alone.
        field = re.search(r'field "(\w+)"', str(error))
        raise WorkerSettingsError(not_json(field[1] if field else "…", prefix=PREFIX)) from None


def host_name() -> str:
    """This host's name, fit for a worker's name."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", platform.node().partition(".")[0]).strip("-")[:80] or "host"
