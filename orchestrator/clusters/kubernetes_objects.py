"""The Job of a launched worker as a manifest, and what nodes and pods tell of GPUs. Pure: objects are JSON."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator.clusters.config import KubernetesSettings
from orchestrator.clusters.contract import ClusterAway, JobState, Launch, OwnJob, Waiting

MANAGER = "app.kubernetes.io/managed-by"
TOKEN = "evalyard/token"  # noqa: S105  # a label's name
LAUNCH = "evalyard/launch"

GRACE_SECONDS = 45
"""From the signal to the kill: a worker's own grace of 20 s, and time to say so."""

KEPT_SECONDS = 600
"""How long Kubernetes keeps an ended Job, for its log."""

Object = Mapping[str, Any]

_SUFFIXES = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("0.001"),
    "": Decimal(1),
}


def job_manifest(
    settings: KubernetesSettings, launch: Launch, *, token: str, environment: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    """The Job that runs one worker once. Its pod is never started again: the hub launches another if there is work."""
    labels = {MANAGER: "evalyard", TOKEN: token, LAUNCH: launch.id}
    resources = {settings.resource: str(settings.gpus), "memory": str(int(settings.memory))}
    container = {
        "name": "worker",
        "image": settings.image,
        "command": [*settings.command, "engine", "--name", launch.worker],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())]
        + [
            {"name": "EVALYARD_WORKER_SCRATCH", "value": "/scratch"},
            # The deadline counts from when Kubernetes makes the Job, a moment after this.
            {"name": "EVALYARD_WORKER_HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "EVALYARD_WORKER_UNTIL", "value": (now + settings.time_limit).isoformat()},
        ],
        "envFrom": [{"secretRef": {"name": settings.secret}}],
        "resources": {"requests": {**resources, "cpu": str(settings.cpus)}, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            # Engines on several GPUs talk through shared memory, and a container's own is 64 MiB.
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108  # a mount point in the container
            *settings.mounts,
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "priorityClassName": settings.priority_class,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        # The pod's own first process buries what killed engines leave behind; a worker buries its children alone.
        "shareProcessNamespace": True,
        # A service named `evalyard` would put EVALYARD_PORT into the worker's environment.
        "enableServiceLinks": False,
        "nodeSelector": dict(settings.node_labels),
        **({"affinity": _away_from(launch.avoid)} if launch.avoid else {}),
        "tolerations": list(settings.tolerations),
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            *settings.volumes,
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": launch.worker, "namespace": settings.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": int(settings.time_limit.total_seconds()),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _away_from(hosts: Sequence[str]) -> dict[str, Any]:
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [host]} for host in hosts]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def read_gpus(nodes: Iterable[Object], pods: Sequence[Object], settings: KubernetesSettings) -> tuple[int, int, int]:
    """GPUs on nodes that are up, GPUs that are idle on nodes that take our pods, and workers that could start there."""
    held: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        if place := pod["spec"].get("nodeName"):
            node_held = held.setdefault(place, {})
            for name in (settings.resource, "cpu", "memory"):
                node_held[name] = node_held.get(name, Decimal(0)) + asked(pod, name)
    total = idle = room = 0
    for node in nodes:
        there = _allocatable(node)
        gpus = int(quantity(there.get(settings.resource, "0")))
        if not gpus or not _is_ready(node):
            continue
        total += gpus
        if node["spec"].get("unschedulable") or not _tolerated(node, settings):
            continue
        used = held.get(node["metadata"]["name"], {})
        left = {
            name: quantity(there.get(name, "0")) - used.get(name, Decimal(0))
            for name in (settings.resource, "cpu", "memory")
        }
        idle += max(int(left[settings.resource]), 0)
        fits = (left[settings.resource] / settings.gpus, left["cpu"] / settings.cpus, left["memory"] / settings.memory)
        room += max(int(min(fits)), 0)
    return total, idle, room


def read_others(
    pods: Iterable[Object], settings: KubernetesSettings, *, tokens: Collection[str], nodes: Iterable[Object]
) -> Waiting:
    """Pods of others that wait for such GPUs and may be placed on these nodes. `tokens` are on those of this hub.

    One that asks for more than the largest of them has waits for ever, whoever gives way to it.
    """
    jobs = gpus = 0
    largest = max((int(quantity(_allocatable(node).get(settings.resource, "0"))) for node in nodes), default=0)
    since: datetime | None = None
    for pod in pods:
        wanted = int(asked(pod, settings.resource))
        if not 0 < wanted <= largest or pod["spec"].get("nodeName") or _labels(pod).get(TOKEN) in tokens:
            continue
        if pod["metadata"].get("deletionTimestamp") or pod["spec"].get("schedulingGates"):
            continue
        chosen = pod["spec"].get("nodeSelector") or {}
        if any(chosen.get(label, value) != value for label, value in settings.node_labels.items()):
            continue
        jobs += 1
        gpus += wanted
        made = _time(pod["metadata"].get("creationTimestamp"))
        if made is not None:
            since = made if since is None else min(since, made)
    return Waiting(jobs, gpus, since)


def read_jobs(jobs: Iterable[Object], pods: Iterable[Object]) -> tuple[OwnJob, ...]:
    """Our jobs, by their labels."""
    by_launch = {_labels(pod)[LAUNCH]: pod for pod in pods if LAUNCH in _labels(pod)}
    found = []
    for job in jobs:
        launch = _labels(job).get(LAUNCH, "")
        if not re.fullmatch(r"[0-9a-f]{10}", launch):
            continue
        state, sentence = _job_state(job, by_launch.get(launch))
        found.append(OwnJob(launch=launch, handle=job["metadata"]["name"], state=state, sentence=sentence))
    return tuple(found)


def asked(pod: Object, resource: str) -> Decimal:
    """How much of a resource the pod asks for: its containers together, or its largest first step if that is more."""

    def of(container: Object) -> Decimal:
        resources = container.get("resources") or {}
        text = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(resource)
        return quantity(text or "0")

    first = pod["spec"].get("initContainers") or []
    beside = [one for one in first if one.get("restartPolicy") == "Always"]
    together = sum((of(one) for one in [*(pod["spec"].get("containers") or []), *beside]), Decimal(0))
    return max([together, *(of(one) for one in first)])


def quantity(text: str | int | float) -> Decimal:
    """A quantity of Kubernetes, such as `3920m`, `64Gi`, `1e3` or `2`, as a number.

    Raises:
        ClusterAway: it is none.
    """
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]{1,3})?)(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E|)", str(text))
    try:
        if found:
            return Decimal(found[1]) * _SUFFIXES[found[2]]
    except InvalidOperation:
        pass
    raise ClusterAway(f"Kubernetes tells the quantity {str(text)[:40]!r}, which is not understood.")


def _job_state(job: Object, pod: Object | None) -> tuple[JobState, str]:
    for condition in job.get("status", {}).get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed", "FailureTarget"):
            reason = f"{condition.get('reason') or ''} {condition.get('message') or ''}".strip()
            return JobState.ENDED, f"Kubernetes says {reason}"[:300] if reason else ""
    # A pod that has its place holds its GPU, though its image may still be on the way.
    if pod is None or not pod["spec"].get("nodeName"):
        return JobState.PENDING, _pending_because(pod)
    return JobState.RUNNING, _pending_because(pod)


def _pending_because(pod: Object | None) -> str:
    """Why the pod does not run: no place, or an image or volume that cannot be had."""
    status = pod.get("status", {}) if pod is not None else {}
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"Kubernetes says {waiting['reason']}: {waiting.get('message') or ''}"[:300]
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"Kubernetes says {condition.get('message') or condition.get('reason')}"[:300]
    return ""


def _allocatable(node: Object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = node.get("status", {}).get("allocatable") or {}
    return found


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _tolerated(node: Object, settings: KubernetesSettings) -> bool:
    """Whether our pods tolerate every taint that keeps pods away."""
    for taint in node["spec"].get("taints") or []:
        if taint.get("effect") not in ("NoSchedule", "NoExecute"):
            continue
        if not any(_covers(toleration, taint) for toleration in settings.tolerations):
            return False
    return True


def _covers(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def _labels(thing: Object) -> Mapping[str, str]:
    return thing["metadata"].get("labels") or {}


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat((text or "").replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None
