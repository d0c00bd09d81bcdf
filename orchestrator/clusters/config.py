"""The clusters file (`clusters.toml`): where the hub may launch workers, in whose name, and how many at most.

Read once at start. A name that nothing reads, or a value that cannot be, stops the start with a sentence.
"""

import difflib
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError, field_validator

from orchestrator.clusters.decision import Limits
from orchestrator.errors import SettingsError
from orchestrator.settings import HubSettings
from orchestrator.wire import EngineFamily

NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")
OWN_OPTIONS = (
    *("job-name", "comment", "export", "export-file", "requeue", "no-requeue", "array", "wrap", "dependency"),
    *("parsable", "test-only", "wait", "hold", "partition", "qos", "account", "time", "gres", "gpus", "gpus-per-node"),
    *("gpus-per-task", "ntasks", "nodes", "cpus-per-task", "mem", "signal", "output", "error", "chdir"),
)
"""Options of sbatch that the launcher sets itself, or that would change what a launch is."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _read_span(value: Any) -> Any:
    """`90s`, `10m`, `12h`, `2d` as a span; anything else is left to pydantic."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,6})\s*([smhd])", value.strip())):
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    raise ValueError(f"{value!r} is no span: write it as 90s, 10m, 12h or 2d")


Span = Annotated[timedelta, BeforeValidator(_read_span)]


class ClusterSettings(BaseModel):
    """One kind of GPU of one cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Short name, unique among all: launched workers are called by it."""
    gpus: int = Field(default=1, ge=1, le=64)
    """GPUs of one worker."""
    gpu_memory: ByteSize | None = Field(default=None, gt=0)
    """Memory of one GPU, such as `80GB`: a model that does not fit is not launched for. Unknown: tried."""
    most_workers: int = Field(default=4, ge=0, le=10_000)
    leave_free: int = Field(default=0, ge=0)
    most_share: float = Field(default=1.0, gt=0, le=1)
    until_idle: Span = timedelta(minutes=5)
    """A worker without work this long ends itself."""
    time_limit: Span = timedelta(hours=12)
    """A worker ends after this long, sealed, and another is launched if there is still work."""
    every: Span = timedelta(seconds=15)
    """Pause between two looks at the cluster."""
    start_timeout: Span = timedelta(minutes=10)
    pending_timeout: Span = timedelta(minutes=2)
    yield_after: Span = timedelta(minutes=1)
    cpus: int = Field(default=4, ge=1)
    """Cores of one worker."""
    memory: ByteSize = Field(default=ByteSize(32 << 30), ge=1 << 20)
    """Main memory of one worker."""
    engine: EngineFamily | None = None
    """Engine family of its workers; the hub's by default."""
    command: tuple[str, ...] = Field(min_length=1)
    """How a worker is started on a host of the cluster, up to and without `engine`."""
    environment: dict[str, str] = {}
    """Further variables of its workers. No secrets: this file is not for them."""
    pass_on: tuple[str, ...] = ()
    """Names of variables of the control process that its workers get, too."""

    @property
    def limits(self) -> Limits:
        return Limits(
            gpus=self.gpus,
            most_workers=self.most_workers,
            leave_free=self.leave_free,
            most_share=self.most_share,
            start_timeout=self.start_timeout,
            pending_timeout=self.pending_timeout,
            yield_after=self.yield_after,
        )

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"the name {name!r}: take lower-case letters, digits and dashes, at most 30")
        return name

    @field_validator("pass_on", "environment")
    @classmethod
    def _variables(cls, names: Any) -> Any:
        for name in names:
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable")
        return names


class SlurmSettings(ClusterSettings):
    """GPUs of a Slurm partition, for preemptible jobs."""

    partition: str
    """Partition of low priority whose jobs Slurm preempts for others."""
    gpu: str = "gpu"
    """What Slurm calls these GPUs: `gpu`, or with its type `gpu:a100`."""
    qos: str | None = None
    account: str | None = None
    logs: Path
    """Folder for the workers' logs, at this path on the hosts of the cluster."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as `--constraint=a100`."""
    sees_all_jobs: bool = False
    """Launch although the cluster hides jobs of others from plain users (PrivateData): ours is told of them."""
    slurm_conf: Path | None = None
    """Where the configuration lies, when not at the usual place."""

    @field_validator("partition", "qos", "account")
    @classmethod
    def _word(cls, word: str | None) -> str | None:
        if word is not None and not WORD.fullmatch(word):
            raise ValueError(f"{word!r}: take one name of letters, digits, dot, dash and underscore")
        return word

    @field_validator("gpu")
    @classmethod
    def _gres(cls, gpu: str) -> str:
        if not re.fullmatch(r"gpu(:[A-Za-z0-9_.-]{1,60})?", gpu):
            raise ValueError(f"gpu = {gpu!r}: write `gpu`, or with a type of `sinfo -o %G`, such as `gpu:a100`")
        return gpu

    @field_validator("logs")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute() or "%" in str(path):
            raise ValueError(f"logs = {str(path)!r}: give an absolute path without %")
        return path

    @field_validator("options")
    @classmethod
    def _options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            found = re.fullmatch(r"--([a-z][a-z0-9-]*)(=[^\x00-\x1f]*)?", option)
            if not found:
                raise ValueError(f"options: write {option!r} as --name or --name=value")
            # sbatch takes any beginning of an option's name that is not ambiguous.
            if any(own.startswith(found[1]) for own in OWN_OPTIONS):
                raise ValueError(f"options: --{found[1]} is the launcher's own. Leave it out")
        return options


class KubernetesSettings(ClusterSettings):
    """GPUs of Kubernetes nodes, for pods of a low priority."""

    namespace: str = "evalyard"
    image: str
    """Image with Evalyard and its engine."""
    command: tuple[str, ...] = Field(default=("python", "-m", "workers.app"), min_length=1)
    resource: str = "nvidia.com/gpu"
    """What Kubernetes calls these GPUs."""
    node_labels: dict[str, str] = {}
    """Labels of the nodes that may be used, such as `"nvidia.com/gpu.product" = "NVIDIA-A100-SXM4-80GB"`."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints of those nodes that the pods tolerate, as in a pod's manifest."""
    priority_class: str = "evalyard-idle"
    secret: str = "evalyard-worker"  # noqa: S105  # the name of one
    """Secret whose entries are the workers' variables: broker's address with its password, read token."""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    """Volumes for weights and the artifact store, and where they are mounted, as in a pod's manifest."""
    api: str | None = None
    """Address of the API server; the pod's own cluster by default. `kubectl proxy` gives one: http://127.0.0.1:8001."""
    token_file: Path | None = None
    ca_file: Path | None = None

    @field_validator("pass_on")
    @classmethod
    def _nothing_to_pass(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names:
            raise ValueError("pass_on: what is passed on would stand in a manifest. Put it into the Secret")
        return names

    @field_validator("namespace", "priority_class", "secret")
    @classmethod
    def _label(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name):
            raise ValueError(f"{name!r} is no name of a Kubernetes object")
        return name

    @field_validator("api")
    @classmethod
    def _address(cls, api: str | None) -> str | None:
        local = ("http://127.0.0.1:", "http://localhost:")
        if api is not None and not api.startswith(("https://", *local)):
            raise ValueError(f"api = {api!r}: give an address with https://, or http:// on this host alone")
        return api.rstrip("/") if api else None


KINDS: dict[str, type[ClusterSettings]] = {"slurm": SlurmSettings, "kubernetes": KubernetesSettings}


def read_clusters(path: Path) -> tuple[ClusterSettings, ...]:
    """Every cluster of the file.

    Raises:
        SettingsError: the file cannot be read, or something in it cannot be.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The clusters file {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise SettingsError(f"The clusters file {path} is no TOML: {error}.") from error
    clusters: list[ClusterSettings] = []
    for kind, entries in found.items():
        if kind not in KINDS or not isinstance(entries, list):
            raise SettingsError(f"{path}: begin each cluster with [[slurm]] or [[kubernetes]]; found '{kind}'.")
        for entry in entries:
            clusters.append(_read(KINDS[kind], entry, place=f"{path}, {kind} '{_name_of(entry)}'"))
    names = [cluster.name for cluster in clusters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{path}: two clusters are named {twice[0]}. Give each a name of its own.")
    return tuple(clusters)


def read_hub_clusters(hub: HubSettings) -> tuple[ClusterSettings, ...]:
    """Every cluster that this hub may launch workers on; none without a file.

    Raises:
        SettingsError: as `read_clusters` does.
    """
    return read_clusters(hub.clusters_file) if hub.clusters_file is not None else ()


def _read(kind: type[ClusterSettings], entry: Any, *, place: str) -> ClusterSettings:
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        detail = error.errors(include_input=False)[0]
        name = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, kind.model_fields, n=1)
            hint = f"Did you mean {near[0]}?" if near else "docs/slurm.md and docs/kubernetes.md list what may be set."
            raise SettingsError(f"{place}: there is no setting {name}. {hint}") from error
        if detail["type"] == "missing":
            raise SettingsError(f"{place}: {name} is missing.") from error
        said = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else f"{name}: {detail['msg']}"
        raise SettingsError(f"{place}: {said}.") from error


def _name_of(entry: Any) -> str:
    return str(entry.get("name", ""))[:40] if isinstance(entry, dict) else ""
