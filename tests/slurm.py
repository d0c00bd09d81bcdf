"""A real Slurm on this machine: its own keys, ports and folder, two nodes with fake GPUs, gone afterwards.

GPUs are character devices that every machine has: Slurm hands out their names and nothing opens them.
"""

import getpass
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.valkey import free_port
from tests.services import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "setpriv")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
NODES = ("n1", "n2")
GRACE_SECONDS = 25
"""How long a preempted job has: the worker's own grace and some seconds."""

# Without cgroups, accounting and root's own services; preemption takes GPUs from `scavenger` for `main`.
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
KillWait=10
ReturnToService=2
GresTypes=gpu
NodeName=DEFAULT CPUs=8 RealMemory=8000 Gres=gpu:fake:{gpus}
NodeName={nodes[0]} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[0]}
NodeName={nodes[1]} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]}
PartitionName=main Nodes=ALL Default=YES PriorityTier=100 PreemptMode=OFF
PartitionName=scavenger Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
"""


class SlurmUnavailable(Exception):
    """No Slurm can be run here, for the reason given."""


@dataclass
class Slurm:
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def start(self, *, gpus: int) -> None:
        user = getpass.getuser()
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        text = CONFIG.format(
            user=user,
            folder=self.folder,
            port=free_port(),
            ports=[free_port(), free_port()],
            nodes=NODES,
            gpus=gpus,
            grace=GRACE_SECONDS,
        )
        (self.folder / "slurm.conf").write_text(text)
        gres = [f"Name=gpu Type=fake File={device}" for device in DEVICES[:gpus]]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        self._run_daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed", "--num-threads=2",
        )  # fmt: skip
        wait_until(lambda: (self.folder / "munge.socket").exists(), "munged listens", seconds=10)
        self._run_daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self._run_daemon("slurmd", "-D", "-N", node)
        try:
            wait_until(lambda: self.idle_nodes() == len(NODES), "both nodes are idle", seconds=30)
        except AssertionError as error:
            raise SlurmUnavailable(f"{error}\n{self.log()}") from None

    def idle_nodes(self) -> int:
        told = self.run("sinfo", "-h", "-p", "main", "-N", "-o", "%T", check=False).splitlines()
        return told.count("idle")

    def run(self, *command: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        """What a Slurm command says. A client hangs for minutes where the controller is gone."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment, **(environment or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}\n{self.log()}")
        return done.stdout

    def log(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def cancel_all(self) -> None:
        """End every job with its processes; returns once none is left."""
        self.run("scancel", "--me", "--full", "--signal=KILL", check=False)
        self.run("scancel", "--me", check=False)
        wait_until(lambda: not self.run("squeue", "-h", check=False).strip(), "every job has ended", seconds=30)
        wait_until(lambda: self.idle_nodes() == len(NODES), "both nodes are idle", seconds=30)

    def stop(self) -> None:
        """End every job with its processes, then every daemon."""
        if len(self.processes) > len(NODES):
            self.run("scancel", "--me", "--full", "--signal=KILL", check=False)
        for process in reversed(self.processes):  # the last daemon needs the first to say goodbye
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run_daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}-{len(self.processes)}.out.log").open("wb") as log:
            process = subprocess.Popen(
                # A killed test run leaves no daemon behind.
                ("setpriv", "--pdeathsig", "TERM", *command),
                env={**os.environ, **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)


@contextmanager
def running_slurm(folder: Path, *, gpus: int = 1) -> Iterator[Slurm]:
    """A Slurm of two nodes, with so many fake GPUs each.

    Raises:
        SlurmUnavailable: its programs are missing, or its daemons do not start.
    """
    if sys.platform != "linux":
        raise SlurmUnavailable("Slurm runs on Linux alone.")
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        raise SlurmUnavailable(
            f"{', '.join(missing)} not found. Debian: apt-get install slurmctld slurmd slurm-client munge"
        )
    folder.mkdir(parents=True)
    slurm = Slurm(folder)
    with ExitStack() as stack:
        stack.callback(slurm.stop)
        slurm.start(gpus=gpus)
        yield slurm


def _path() -> str:
    """Daemons lie where only root's PATH leads."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
