"""Launches workers as jobs of a preemptible Slurm partition, through Slurm's own commands.

Jobs are submitted with `--no-requeue`: a requeued job would come back minutes later whether or not there is work, and
past others who wait by then. The hub launches another when there is a reason to. No value of the database and no
secret is on a command line, and no shell reads what is given here.
"""

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.clusters.config import SlurmSettings
from orchestrator.clusters.contract import ClusterAway, ClusterView, Launch, LaunchRefused
from orchestrator.clusters.slurm_text import (
    OTHERS_FORMAT,
    OWN_FORMAT,
    Node,
    Partition,
    read_config,
    read_nodes,
    read_others,
    read_own,
    read_partition,
)

SCRIPT = Path(__file__).with_name("slurm_worker.sh")
TIMEOUT_SECONDS = 20.0
"""Clients wait for minutes where the controller is away."""

END_SECONDS = 60
"""A worker is told this long before its time limit."""

GRACE_SECONDS = 25
"""What a worker needs to seal and to end by itself; its own grace is 20 s."""


def _mark(token: str) -> str:
    return f"evalyard-{token}"


class Slurm:
    """One kind of GPU of one partition. `token` marks the jobs of this entry."""

    def __init__(self, settings: SlurmSettings, *, token: str) -> None:
        self._settings = settings
        self._mark = _mark(token)

    def look(self, siblings: Collection[str] = ()) -> ClusterView:
        settings = self._settings
        config = read_config(self._run("scontrol", "show", "config"))
        partition = read_partition(self._run("scontrol", "show", "partition", settings.partition, "--oneliner"))
        told = self._run("scontrol", "show", "node", "--details", "--oneliner")
        nodes = [node for node in read_nodes(told, gpu=settings.gpu) if settings.partition in node.partitions]
        nodes = [node for node in nodes if node.gpus]
        of_user = self._run("squeue", f"--user={os.getuid()}", "--states=all", "--noheader", f"--format={OWN_FORMAT}")
        own = read_own(of_user, mark=self._mark)
        of_hub = [job for token in siblings for job in read_own(of_user, mark=_mark(token))]
        shared = sorted(set().union(*(node.partitions for node in nodes)) | {settings.partition})
        others = read_others(
            self._run(
                *("squeue", "--all", "--states=PENDING", "--noheader"),
                *(f"--partition={','.join(shared)}", f"--Format={OTHERS_FORMAT}"),
            ),
            own=[job.handle for job in (*own, *of_hub)],
            partitions=shared,
            gpu=settings.gpu,
            node_gpus=max((node.gpus for node in nodes), default=1),
            now=datetime.now(UTC),
        )
        usable = [node for node in nodes if node.usable]
        return ClusterView(
            what=settings.gpu,
            total=sum(node.gpus for node in nodes if node.up),
            idle=sum(max(node.gpus - node.gpus_used, 0) for node in usable),
            room=sum(_room(node, settings) for node in usable),
            others=others,
            jobs=tuple(own),
            notes=_notes(config, partition, nodes, settings=settings),
            hindrance=_hindrance(config, partition, settings=settings),
        )

    def launch(self, launch: Launch, environment: Mapping[str, str]) -> str:
        settings = self._settings
        minutes = max(int(settings.time_limit.total_seconds()) // 60, 2)
        options = [
            "--parsable",
            "--no-requeue",
            f"--job-name={launch.worker}",
            f"--comment={self._mark}:{launch.id}",
            f"--partition={settings.partition}",
            *([f"--qos={settings.qos}"] if settings.qos else []),
            *([f"--account={settings.account}"] if settings.account else []),
            "--nodes=1",
            "--ntasks=1",
            f"--gres={settings.gpu}:{settings.gpus}",
            f"--cpus-per-task={settings.cpus}",
            f"--mem={settings.memory >> 20}M",
            f"--time={minutes}",
            f"--signal=TERM@{END_SECONDS}",
            f"--chdir={settings.logs}",
            f"--output={settings.logs / launch.worker}.log",
            "--open-mode=append",
            "--export=ALL",
            *([f"--exclude={','.join(launch.avoid)}"] if launch.avoid else []),
            *settings.options,
        ]
        worker = [*settings.command, "engine", "--name", launch.worker]
        # Celery renames its process, and where Slurm has no cgroups (proctrack/linuxproc) it does not find a process
        # with a space in its name, and so never signals it.
        limits = {"LAUNCH_SECONDS": str(minutes * 60), "LAUNCH_NOTICE": str(END_SECONDS)}
        done = self._start(["sbatch", *options, str(SCRIPT), *worker], {"NOSETPS": "1", **limits, **environment})
        if done.returncode:
            said = _said(done)
            if _is_away(said):
                raise ClusterAway(f"sbatch could not reach Slurm: {said}")
            raise LaunchRefused(f"Slurm refused the worker's job: {said}")
        number = done.stdout.strip().partition(";")[0]
        if not number.isdigit():
            raise ClusterAway(f"sbatch printed no job number: {done.stdout.strip()[:100]!r}.")
        return number

    def cancel(self, handle: str) -> None:
        done = self._start(["scancel", handle])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise ClusterAway(f"scancel of job {handle} failed: {_said(done)}")

    def _run(self, *command: str) -> str:
        done = self._start(command)
        if done.returncode:
            raise ClusterAway(f"{command[0]} failed: {_said(done)}")
        return done.stdout

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        # Nothing of the control process's own environment: it holds secrets, and variables such as SQUEUE_STATES or
        # SBATCH_REQUEUE change what the commands do.
        base = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LOGNAME") if name in os.environ}
        base |= {"LC_ALL": "C.UTF-8"}
        conf = self._settings.slurm_conf or os.environ.get("SLURM_CONF")
        if conf:
            base["SLURM_CONF"] = str(conf)
        if environment is None:
            base |= {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
        try:
            return subprocess.run(
                list(command),
                env={**base, **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise ClusterAway(
                f"There is no program {command[0]} on the hub's host. Install Slurm's client programs there."
            ) from error
        except OSError as error:
            raise ClusterAway(f"{command[0]} could not be started: {error.strerror}.") from error
        except subprocess.TimeoutExpired as error:
            raise ClusterAway(
                f"{command[0]} did not answer within {TIMEOUT_SECONDS:g} s. Is Slurm's controller up?"
            ) from error


def _room(node: Node, settings: SlurmSettings) -> int:
    return max(
        min(
            (node.gpus - node.gpus_used) // settings.gpus,
            node.cpus_free // settings.cpus,
            node.memory_free // settings.memory,
        ),
        0,
    )


def _notes(
    config: Mapping[str, str], partition: Partition, nodes: Sequence[Node], *, settings: SlurmSettings
) -> tuple[str, ...]:
    """What is not as it should be, though workers can be launched."""
    notes = []
    if not nodes:
        notes.append(f"Partition {partition.name} has no node with {settings.gpu}: compare with `sinfo -o %G`.")
    if config.get("PreemptType") == "preempt/none" or partition.preempt_mode == "OFF":
        seconds = settings.yield_after.total_seconds()
        notes.append(
            f"Slurm does not preempt jobs of partition {partition.name}: workers are ended by the hub when others "
            f"have waited {seconds:g} s. Set a PreemptMode for it."
        )
    elif partition.grace_seconds < GRACE_SECONDS and not settings.qos:
        notes.append(
            f"Partition {partition.name} has GraceTime={partition.grace_seconds}: a preempted worker is killed before "
            f"it has sealed, and seconds of work are done again. Set GraceTime={GRACE_SECONDS} or more."
        )
    return tuple(notes)


def _hindrance(config: Mapping[str, str], partition: Partition, *, settings: SlurmSettings) -> str:
    if not partition.up:
        return f"Partition {partition.name} is not up: not launching."
    if "jobs" in config.get("PrivateData", "").split(",") and not settings.sees_all_jobs and os.getuid() != 0:
        return (
            "Slurm hides jobs of others from plain users (PrivateData=jobs), so nobody could be given way: not "
            "launching. Make the hub's user an operator of Slurm and set sees_all_jobs = true."
        )
    return ""


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a command complained of."""
    lines = [line for text in (done.stdout, done.stderr) for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else f"exit code {done.returncode}"


def _is_away(said: str) -> bool:
    return any(word in said for word in ("Unable to contact", "Connection", "timed out", "Socket", "slurm_load"))
