"""What a launcher sees of a cluster and may ask of it: look, launch, cancel. Slurm and Kubernetes are two of these.

A system reports and obeys. It decides nothing, and never touches a job that the hub did not launch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from orchestrator.errors import EvalyardError


class ClusterAway(EvalyardError):
    """The cluster cannot be asked now, or answers what cannot be understood; nothing was changed."""


class LaunchRefused(EvalyardError):
    """The cluster refused to take the worker's job."""


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class OwnJob:
    """A job in the cluster that this hub launched."""

    launch: str
    """The launch that it belongs to, by the mark that it carries."""
    handle: str
    """The cluster's own name of it."""
    state: JobState
    sentence: str = ""
    """The cluster's reason for its state."""


@dataclass(frozen=True)
class Waiting:
    """Jobs of others that wait for these GPUs."""

    jobs: int = 0
    gpus: int = 0
    since: datetime | None = None
    """When the first of them could have started."""


@dataclass(frozen=True)
class ClusterView:
    """A cluster at one moment, as far as one kind of GPU goes."""

    what: str
    """What the GPUs are called here."""
    total: int
    """GPUs on hosts that are up."""
    idle: int
    """GPUs on hosts that take jobs, held by no job."""
    room: int
    """Workers that could start at once: GPUs, cores and memory lie together on one host."""
    others: Waiting = Waiting()
    jobs: tuple[OwnJob, ...] = ()
    notes: tuple[str, ...] = ()
    """What an operator should mend, as sentences."""
    hindrance: str = ""
    """Why nothing may be launched here at all."""


@dataclass(frozen=True)
class Launch:
    """A worker to be started. The mark makes its job findable after a crash."""

    id: str
    """Unique, ten hexadecimal digits: the mark that its job carries."""
    worker: str
    """Name that the worker takes."""
    avoid: tuple[str, ...] = ()
    """Hosts on which it should not start: what was launched there failed."""


class ClusterSystem(Protocol):
    """One kind of GPU of one cluster. Each call ends within a minute."""

    def look(self, siblings: Collection[str] = ()) -> ClusterView:
        """What is there now. `siblings`: tokens of the hub's other entries, whose jobs are not those of others.

        Raises:
            ClusterAway: it cannot be asked.
        """

    def launch(self, launch: Launch, environment: Mapping[str, str]) -> str:
        """Submit the worker's job, with this environment; returns its handle.

        Raises:
            ClusterAway: it cannot be asked; the job may have been taken nevertheless.
            LaunchRefused: it does not take such a job.
        """

    def cancel(self, handle: str) -> None:
        """Ask the job to end, with time to seal. One that is gone already is no error.

        Raises:
            ClusterAway: it cannot be asked.
        """
