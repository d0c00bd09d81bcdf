"""Reads what Slurm's commands print, strictly: what is not understood is an error, never a guess. Pure.

Text rather than JSON: these fields have been the same for ten years, while the JSON of Slurm 22, 23 and 24 differs and
plain installations often lack its plug-in.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.clusters.contract import ClusterAway, JobState, OwnJob, Waiting

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "SPECIAL_EXIT", "TIMEOUT"),
}
_RUNNING = {
    *("RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "CONFIGURING"),
}
_PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"}

_USABLE = frozenset({"IDLE", "MIXED", "CLOUD", "COMPLETING", "DYNAMIC_NORM"})
"""States of a node on which an idle GPU is idle: not one that is drained, reserved, planned for another job, asleep."""

_UP = _USABLE | {"ALLOCATED", "PLANNED", "RESERVED"}

_CANNOT_START = re.compile(
    r"JobHeld|JobHoldMaxRequeue|Dependency|BeginTime|DeadLine|JobArrayTaskLimit|launch failed|launch_failed|user_env"
    r"|Assoc|QOS|Max\w+Per(?:Account|User)|AccountNotAllowed|AccountingPolicy|InvalidAccount|InvalidQOS|Licenses"
    r"|BadConstraints|Partition(?:TimeLimit|NodeLimit|Config|Down|Inactive)|Reservation"
)
"""Pending reasons (Slurm's `job_reason_codes`) of jobs that would not start though every GPU were idle, and may stay so
for ever: held, for later, over a limit of their account, or asking for what there is not."""


@dataclass(frozen=True)
class Node:
    name: str
    partitions: frozenset[str]
    usable: bool
    """Up and open to new jobs."""
    up: bool
    gpus: int
    gpus_used: int
    cpus_free: int
    memory_free: int
    """Bytes."""


@dataclass(frozen=True)
class Partition:
    name: str
    up: bool
    grace_seconds: int
    preempt_mode: str


def read_nodes(text: str, *, gpu: str) -> list[Node]:
    """Nodes from `scontrol show node --details --oneliner`, with their GPUs of this kind."""
    nodes = []
    for line in text.splitlines():
        if not line.strip():
            continue
        value = _record(line, ("NodeName", "Gres", "GresUsed", "State", "RealMemory", "AllocMem", "CPUTot", "CPUAlloc"))
        states = frozenset(value["State"].split("+"))
        cpus = _optional(line, "CPUEfctv") or value["CPUTot"]
        nodes.append(
            Node(
                name=value["NodeName"],
                # A node of no partition has no such word.
                partitions=frozenset((_optional(line, "Partitions") or "").split(",")),
                usable=states <= _USABLE,
                up=states <= _UP,
                gpus=count_gres(value["Gres"], gpu),
                gpus_used=count_gres(value["GresUsed"], gpu),
                cpus_free=_number(cpus, line) - _number(value["CPUAlloc"], line),
                memory_free=(_number(value["RealMemory"], line) - _number(value["AllocMem"], line)) << 20,
            )
        )
    return nodes


def read_partition(text: str) -> Partition:
    """The partition from `scontrol show partition NAME --oneliner`."""
    value = _record(text.strip(), ("PartitionName", "GraceTime", "PreemptMode", "State"))
    return Partition(
        name=value["PartitionName"],
        up=value["State"] == "UP",
        grace_seconds=_number(value["GraceTime"], text),
        preempt_mode=value["PreemptMode"],
    )


def read_config(text: str) -> dict[str, str]:
    """Names and values of `scontrol show config`."""
    found = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in found}


OWN_FORMAT = "%A|%T|%r|%k"


def read_own(text: str, *, mark: str) -> list[OwnJob]:
    """Jobs of ours from `squeue --format=OWN_FORMAT` of our own user: those whose comment is `MARK:LAUNCH`."""
    found = []
    for line in text.splitlines():
        parts = line.split("|", 3)
        if len(parts) != 4:
            continue  # a line of another job's comment
        number, state, reason, comment = parts
        if not (ours := re.fullmatch(re.escape(mark) + r":([0-9a-f]{10})", comment.strip())):
            continue
        if not number.isdigit():
            raise _unclear("squeue", line)
        said = "" if reason in ("None", "") else f"Slurm says {reason}."
        if state not in ("PENDING", "RUNNING", "COMPLETED"):
            said = f"Slurm says {state}{'' if reason in ('None', '', state) else f' ({reason})'}."
        found.append(OwnJob(launch=ours[1], handle=number, state=_job_state(state, line), sentence=said))
    return found


_WIDTHS = {
    "JobID": 20,
    "Partition": 100,
    "NumNodes": 20,
    "NumTasks": 20,
    "OverSubscribe": 20,
    "EligibleTime": 24,
    "tres-per-job": 80,
    "tres-per-node": 80,
    "tres-per-socket": 80,
    "tres-per-task": 80,
    "Reason": 60,
}
"""Fields of squeue and their widths: it cuts what is longer without a word. The one of free text is the last."""

_ASKED = ("tres-per-job", "tres-per-node", "tres-per-socket", "tres-per-task")

OTHERS_FORMAT = ",".join(f"{name}:.{width}|" for name, width in _WIDTHS.items())


def read_others(
    text: str, *, own: Iterable[str], partitions: Iterable[str], gpu: str, node_gpus: int, now: datetime
) -> Waiting:
    """What others wait for, from `squeue --states=PENDING --Format=OTHERS_FORMAT` of all users.

    Counts jobs that could start in one of the partitions if these GPUs were idle; one that wants whole nodes wants
    their GPUs (`node_gpus` each), too. Times are UTC.
    """
    ours, shared = frozenset(own), frozenset(partitions)
    jobs, gpus = 0, 0
    since: datetime | None = None
    for line in text.splitlines():
        if not line.strip():
            continue
        value = _cells(line)
        cut = len(value["Partition"]) == _WIDTHS["Partition"]
        if value["JobID"] in ours or not (cut or shared.intersection(value["Partition"].split(","))):
            continue
        if _CANNOT_START.match(value["Reason"]):
            continue
        wanted = _wanted(value, gpu=gpu, node_gpus=node_gpus, line=line)
        if not wanted:
            continue
        jobs += 1
        gpus += wanted
        eligible = _time(value["EligibleTime"]) or now
        since = eligible if since is None else min(since, eligible)
    return Waiting(jobs, gpus, since)


def _cells(line: str) -> dict[str, str]:
    found, at = {}, 0
    for name, width in _WIDTHS.items():
        if name != "Reason" and line[at + width : at + width + 1] != "|":
            raise _unclear("squeue", line)
        found[name] = line[at : at + width].strip()
        at += width + 1
    return found


def count_gres(text: str, gpu: str) -> int:
    """How many of `gpu` (or of `gpu:TYPE`) a list such as `gpu:a100:4(S:0-1),gpu:v100:2` holds; all types for `gpu`."""
    total = 0
    for part in re.sub(r"\([^()]*\)", "", text).split(","):
        words = part.strip().removeprefix("gres:").removeprefix("gres/").split(":")
        if words[0] != "gpu":
            continue
        named = ":".join(words[:-1]) if words[-1].isdigit() else ":".join(words)
        count = int(words[-1]) if words[-1].isdigit() else 1
        if named == gpu or gpu == "gpu":
            total += count
    return total


def _wanted(value: Mapping[str, str], *, gpu: str, node_gpus: int, line: str) -> int:
    """GPUs of this kind that a pending job asks for; one of no certain type may want these."""
    tasks, nodes = _number(value["NumTasks"], line), _number(value["NumNodes"].partition("-")[0], line)
    times = dict(zip(_ASKED, (1, max(nodes, 1), max(nodes, 1), max(tasks, 1)), strict=True))
    total = 0
    for name in _ASKED:
        asked = value[name]
        untyped = count_gres(asked, "gpu") if re.search(r"gpu(:\d+)?(,|$)", asked) else 0
        total += (count_gres(asked, gpu) or untyped) * times[name]
        if len(asked) == _WIDTHS[name]:
            total = max(total, 1)  # cut: these GPUs may stand in what is missing
    if total == 0 and value["OverSubscribe"] == "NO":
        return max(nodes, 1) * max(node_gpus, 1)
    return total


def _job_state(state: str, line: str) -> JobState:
    for states, found in ((_PENDING, JobState.PENDING), (_RUNNING, JobState.RUNNING), (_ENDED, JobState.ENDED)):
        if state in states:
            return found
    raise _unclear("squeue", line)


def _record(line: str, names: Iterable[str]) -> dict[str, str]:
    """Values of a line of `Name=value` words. The first of a name counts: free text stands at the end."""
    found = {}
    for name in names:
        value = _optional(line, name)
        if value is None:
            raise _unclear("scontrol", line)
        found[name] = value
    return found


def _optional(line: str, name: str) -> str | None:
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    return found[1] if found else None


def _number(text: str, line: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text):
        raise _unclear("Slurm", line)
    return int(text)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None  # N/A, Unknown


def _unclear(program: str, line: str) -> ClusterAway:
    shown = " ".join(line.split())[:160]
    return ClusterAway(f"{program} printed a line that is not understood: {shown!r}. Nothing is launched meanwhile.")
