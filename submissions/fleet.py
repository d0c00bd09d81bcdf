"""What the engine workers here are and know, as far as it decides whether a model can be evaluated. Read once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from orchestrator.footprint import Footprint, fewest_devices, sharing
from orchestrator.scheduling.places import CPU_SHARE
from orchestrator.settings import HubSettings
from orchestrator.tables import EngineVersion, Worker
from orchestrator.wire import EngineFamily

GIB = 1 << 30
MOST_GPUS = 1024
NAMES = {EngineFamily.VLLM: "vLLM", EngineFamily.TRANSFORMERS: "transformers", EngineFamily.SCRIPTED: "the engine"}


@dataclass(frozen=True)
class Machine:
    """One engine worker's host."""

    device_type: str | None
    device_count: int = 1
    memory_bytes: int | None = None
    """Of its smallest GPU, or of the host where it computes on a CPU."""

    @property
    def is_cpu(self) -> bool:
        return self.device_type == "cpu"

    def holds(self, need: Footprint) -> bool:
        """Whether the model fits, whoever uses the host now; a host that says nothing may."""
        if self.memory_bytes is None:
            return True
        if self.is_cpu:
            return need.weight_bytes <= CPU_SHARE * self.memory_bytes
        return fewest_devices(need, memory_bytes=self.memory_bytes, count=self.device_count) is not None

    @property
    def text(self) -> str:
        """`4 × 80 GB of GPU memory`."""
        memory = round((self.memory_bytes or 0) / GIB)
        return f"{memory} GB of memory and no GPU" if self.is_cpu else f"{self.device_count} × {memory} GB"


@dataclass(frozen=True)
class Fleet:
    """All engine workers of the family that new evaluations are for. Where nothing is known nothing is refused."""

    machines: tuple[Machine, ...] = ()
    engine: str = "the engine"
    """For people: `vLLM 0.32.0`."""
    architectures: frozenset[str] | None = None
    """What any worker's engine generates with; None where one of them did not say."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Architectures that the engine knew once, with the last version that did."""
    quantisations: frozenset[str] = frozenset()
    """Ways of quantising that any worker's engine loads; empty where one of them did not say."""
    may_grow: bool = False
    """Whether larger workers may be launched than any that is here."""

    @property
    def has_gpu(self) -> bool | None:
        """Whether any worker has a GPU; None when there is no worker at all."""
        return any(not machine.is_cpu for machine in self.machines) if self.machines else None

    def lacks_room(self, need: Footprint) -> str | None:
        """What the model needs and what the largest worker has; None where it fits, or where that is not known."""
        if self.may_grow or not self.machines or any(machine.holds(need) for machine in self.machines):
            return None
        largest = max(self.machines, key=lambda one: (not one.is_cpu, one.device_count * (one.memory_bytes or 0)))
        if largest.is_cpu:
            memory = need.weight_bytes / CPU_SHARE / GIB
            return f"needs {_rounded(memory)} GB of memory, the cluster's largest worker has {largest.text}"
        assert largest.memory_bytes is not None, "a host that does not say holds anything"
        wanted = fewest_devices(need, memory_bytes=largest.memory_bytes, count=MOST_GPUS)
        each = round(largest.memory_bytes / GIB)
        if wanted is None:
            total = _rounded(need.weight_bytes / GIB)
            most = max(sharing(need, MOST_GPUS))
            few = f"at most {most} GPUs" if most > 1 else "one GPU"
            return f"needs {total} GB on {few}, the cluster's largest worker has {largest.text}"
        return f"needs {wanted} × {each} GB, the cluster's largest worker has {largest.text}"


def read_fleet(session: Session, settings: HubSettings) -> Fleet:
    """The workers that this hub knows, whether they are up now or not; it forgets those that were long away."""
    workers = session.exec(
        select(Worker.device_type, Worker.device_count, Worker.memory_bytes, Worker.engine_version).where(
            Worker.kind == "engine", Worker.engine_family == settings.engine
        )
    ).all()
    versions = {version for *_, version in workers}
    known = session.exec(
        select(EngineVersion).where(
            EngineVersion.engine == settings.engine,
            col(EngineVersion.version).in_([version for version in versions if version]),
        )
    ).all()
    all_said = bool(known) and len(known) == len(versions)
    name = NAMES[settings.engine]
    numbers = " or ".join(sorted(version.partition("+")[0] for version in versions if version))
    return Fleet(
        machines=tuple(Machine(kind, count, memory) for kind, count, memory, _ in workers),
        engine=f"{name} {numbers}".strip() if settings.engine is not EngineFamily.SCRIPTED else name,
        architectures=frozenset(one for row in known for one in row.architectures) if all_said else None,
        dropped={one: version for row in known for one, version in row.dropped.items()},
        quantisations=frozenset(one for row in known for one in row.quantisations)
        if all_said and all(row.quantisations for row in known)
        else frozenset(),
        may_grow=settings.clusters_file is not None,
    )


def _rounded(gigabytes: float) -> str:
    return f"{gigabytes:.0f}" if gigabytes >= 10 else f"{gigabytes:.1f}"
