"""The Kubernetes launcher against a small API server, its manifests against Kubernetes' own schema. No live cluster."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from orchestrator.clusters.config import KubernetesSettings, read_clusters
from orchestrator.clusters.contract import ClusterAway, JobState, Launch, LaunchRefused
from orchestrator.clusters.kubernetes import Kubernetes
from orchestrator.clusters.kubernetes_objects import GRACE_SECONDS, LAUNCH, TOKEN, asked, job_manifest, quantity
from tests.orchestrator.clusters import api_stub
from tests.orchestrator.clusters.api_stub import Api, running_api

DEPLOY = Path(__file__).parents[3] / "deploy" / "kubernetes"
VERSIONS = ("1.28", "1.33", "1.37")
"""A schema that an older, a usual and the newest cluster have."""

LAUNCH_ONE = Launch("0123456789", "a100-0123456789")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCT = {"nvidia.com/gpu.product": "A100"}


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api() as made:
        yield made


def settings(tmp_path: Path, api: Api | None = None, **more: Any) -> KubernetesSettings:
    token = tmp_path / "token"
    token.write_text(f"{api_stub.TOKEN}\n")
    fields = {"name": "a100", "image": "x", "cpus": 4, "memory": "16GiB", "node_labels": PRODUCT} | more
    return KubernetesSettings(api=api.url if api else None, token_file=token, **fields)


def cluster(tmp_path: Path, api: Api, **more: Any) -> Kubernetes:
    return Kubernetes(settings(tmp_path, api, **more), token="ours")


def node(name: str = "n1", *, gpus: int = 4, ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": PRODUCT},
        "spec": spec,
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "31500m", "memory": "131072Mi"},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
        },
    }


def pod(
    gpus: int = 1, *, place: str | None = "n1", labels: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    asked = {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "2", "memory": "8Gi"}}
    spec = {"containers": [{"resources": asked if gpus else {}}], **more.pop("spec", {})}
    if place:
        spec["nodeName"] = place
    metadata = {"labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z", **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running" if place else "Pending"}, **more}


def test_idle_gpus_are_those_that_no_pod_holds_on_nodes_that_take_ours(tmp_path: Path, api: Api):
    tainted = node("n4", taints=[{"key": "reserved", "value": "team", "effect": "NoSchedule"}])
    api.nodes = [node(), node("n2", unschedulable=True), node("n3", ready="False"), tainted]
    api.nodes.append({"metadata": {"name": "n5", "labels": {}}, "spec": {}, "status": {}})
    api.pods = [pod(1), pod(0), pod(2, place="n2")]
    found = cluster(tmp_path, api).look()
    assert (found.total, found.idle, found.room, found.others.jobs) == (12, 3, 3, 0)
    tolerant = cluster(tmp_path, api, tolerations=({"key": "reserved", "operator": "Exists"},)).look()
    assert tolerant.idle == 7
    fewer = cluster(tmp_path, api, memory="64GiB").look()
    assert (fewer.idle, fewer.room) == (3, 1)


def test_lists_are_read_page_by_page_and_only_living_pods_are_asked_for(tmp_path: Path, api: Api):
    api.nodes = [node("n1"), node("n2"), node("n3")]
    assert cluster(tmp_path, api).look().total == 12
    assert [query.get("continue") for _, path, query in api.requests if path.endswith("nodes")] == [None, ["1"], ["2"]]
    (living,) = {query["fieldSelector"][0] for _, path, query in api.requests if path.endswith("pods")}
    assert living == "status.phase!=Succeeded,status.phase!=Failed"


def test_pods_of_others_that_wait_for_such_gpus_count(tmp_path: Path, api: Api):
    api.nodes = [node()]
    ours = pod(1, place=None, labels={TOKEN: "ours", LAUNCH: "0123456789"})
    elsewhere = pod(1, place=None, spec={"nodeSelector": {"nvidia.com/gpu.product": "H100"}})
    gated = pod(1, place=None, spec={"schedulingGates": [{"name": "kueue"}]})
    going = pod(1, place=None, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    api.pods = [pod(0, place=None), ours, elsewhere, gated, going, pod(3, place=None)]
    found = cluster(tmp_path, api).look().others
    assert (found.jobs, found.gpus, found.since) == (1, 3, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_launched_worker_is_found_by_its_labels_in_every_state(tmp_path: Path, api: Api):
    kubernetes = cluster(tmp_path, api)
    assert kubernetes.launch(LAUNCH_ONE, {}) == "a100-0123456789"
    (job,) = kubernetes.look().jobs
    assert (job.launch, job.handle, job.state) == ("0123456789", "a100-0123456789", JobState.PENDING)
    labels = {TOKEN: "ours", LAUNCH: "0123456789"}
    full = {"type": "PodScheduled", "status": "False", "message": "0/9 nodes are available"}
    api.pods = [pod(1, place=None, labels=labels, status={"phase": "Pending", "conditions": [full]})]
    (job,) = kubernetes.look().jobs
    assert (job.state, job.sentence) == (JobState.PENDING, "Kubernetes says 0/9 nodes are available")
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    api.pods = [
        pod(1, labels=labels, status={"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]})
    ]
    (job,) = kubernetes.look().jobs
    assert (job.state, job.sentence) == (JobState.RUNNING, "Kubernetes says ErrImagePull: no such image")
    api.pods = [pod(1, labels=labels)]
    assert kubernetes.look().jobs[0].state is JobState.RUNNING
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it has failed"}
    api.jobs["a100-0123456789"]["status"] = {"conditions": [failed]}
    (job,) = kubernetes.look().jobs
    assert (job.state, job.sentence) == (JobState.ENDED, "Kubernetes says BackoffLimitExceeded it has failed")


def test_jobs_of_another_hub_are_not_ours(tmp_path: Path, api: Api):
    Kubernetes(settings(tmp_path, api), token="theirs").launch(LAUNCH_ONE, {})
    assert cluster(tmp_path, api).look().jobs == ()


def test_what_another_entry_of_this_hub_waits_for_is_not_of_others(tmp_path: Path, api: Api):
    api.nodes = [node()]
    api.pods = [pod(1, place=None, labels={TOKEN: "sibling"}, status={"phase": "Pending"})]
    assert cluster(tmp_path, api).look().others.jobs == 1
    assert cluster(tmp_path, api).look({"sibling"}).others.jobs == 0


def test_asking_twice_makes_one_job_and_ending_twice_is_no_error(tmp_path: Path, api: Api):
    kubernetes = cluster(tmp_path, api)
    assert kubernetes.launch(LAUNCH_ONE, {}) == kubernetes.launch(LAUNCH_ONE, {})
    assert len(api.jobs) == 1
    kubernetes.cancel("a100-0123456789")
    kubernetes.cancel("a100-0123456789")
    assert api.jobs == {}


@pytest.mark.parametrize(
    ("code", "error"),
    [(403, LaunchRefused), (422, LaunchRefused), (401, ClusterAway), (429, ClusterAway), (500, ClusterAway)],
)
def test_a_refusal_is_told_apart_from_an_api_that_is_away(tmp_path: Path, api: Api, code: int, error: type[Exception]):
    api.refuse = code, "exceeded quota"
    with pytest.raises(error, match="exceeded quota"):
        cluster(tmp_path, api).launch(LAUNCH_ONE, {})
    with pytest.raises(ClusterAway, match="exceeded quota"):
        cluster(tmp_path, api).look()


def test_an_api_that_is_gone_or_none_is_a_sentence(tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch):
    gone = settings(tmp_path, api).model_copy(update={"api": "http://127.0.0.1:9"})
    with pytest.raises(ClusterAway, match="does not answer at http://127"):
        Kubernetes(gone, token="ours").look()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterAway, match="kubectl proxy"):
        Kubernetes(settings(tmp_path), token="ours").look()
    api.nodes = [node() | {"spec": None}]
    with pytest.raises(ClusterAway, match="not understood"):
        cluster(tmp_path, api, node_labels={}).look()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_is_what_kubernetes_takes(tmp_path: Path, version: str):
    with_all = settings(
        tmp_path,
        tolerations=({"key": "gpu", "operator": "Exists"},),
        volumes=({"name": "shared", "persistentVolumeClaim": {"claimName": "evalyard"}},),
        mounts=({"name": "shared", "mountPath": "/srv"},),
    )
    manifest = job_manifest(with_all, LAUNCH_ONE, token="ours", environment={"EVALYARD_ENGINE": "vllm"}, now=NOW)
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_manifest_is_what_kubernetes_takes(path: Path, version: str):
    for manifest in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validation_finds_a_mistake(tmp_path: Path):
    manifest = job_manifest(settings(tmp_path), LAUNCH_ONE, token="ours", environment={}, now=NOW)
    manifest["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_the_shipped_clusters_file_and_manifests_fit_each_other():
    (example,) = read_clusters(DEPLOY / "clusters.example.toml")
    assert isinstance(example, KubernetesSettings)
    objects = [one for path in DEPLOY.glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    named = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert {("Namespace", example.namespace), ("PriorityClass", example.priority_class)} <= named
    assert ("Secret", example.secret) in named
    (low,) = [one for one in objects if one["kind"] == "PriorityClass"]
    assert (low["value"] < 0, low["preemptionPolicy"]) == (True, "Never")


def test_a_pod_ends_in_time_is_never_restarted_and_sees_no_credentials_of_the_cluster(tmp_path: Path):
    manifest = job_manifest(settings(tmp_path), LAUNCH_ONE, token="ours", environment={}, now=NOW)
    spec = manifest["spec"]["template"]["spec"]
    assert (manifest["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert spec["terminationGracePeriodSeconds"] == GRACE_SECONDS > 20
    assert spec["priorityClassName"] == "evalyard-idle"
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", "2"),
        ("31500m", "31.5"),
        ("1Gi", str(1 << 30)),
        ("1e3", "1000"),
        ("1G", "1000000000"),
        (".5", "0.5"),
        (3, "3"),
    ],
)
def test_quantities_of_kubernetes_are_numbers(text: str | int, value: str):
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1Q", "1.2.3", "one", "-", "1 Gi"])
def test_what_is_no_quantity_is_an_error(text: str):
    with pytest.raises(ClusterAway):
        quantity(text)


def test_a_pod_asks_for_its_containers_together_or_for_its_largest_first_step():
    def container(gpus: int, **more: Any) -> dict[str, Any]:
        return {"resources": {"limits": {"g": str(gpus)}}, **more}

    spec = {"containers": [container(1), container(2)], "initContainers": [container(1)]}
    assert asked({"spec": spec}, "g") == 3
    assert asked({"spec": spec | {"initContainers": [container(5)]}}, "g") == 5
    assert asked({"spec": spec | {"initContainers": [container(1, restartPolicy="Always")]}}, "g") == 4


def test_a_launched_worker_is_told_its_host_and_its_end_and_kept_from_sick_hosts(tmp_path: Path):
    avoiding = replace(LAUNCH_ONE, avoid=("node-3", "node-7"))
    manifest = job_manifest(settings(tmp_path), avoiding, token="ours", environment={}, now=NOW)
    kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    spec = manifest["spec"]["template"]["spec"]
    told = {one["name"]: one for one in spec["containers"][0]["env"]}
    limit = timedelta(seconds=manifest["spec"]["activeDeadlineSeconds"])
    assert told["EVALYARD_WORKER_UNTIL"]["value"] == (NOW + limit).isoformat()
    assert told["EVALYARD_WORKER_HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    (terms,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [one["operator"] for one in terms["matchFields"]] == ["NotIn", "NotIn"]
    assert [one["values"] for one in terms["matchFields"]] == [["node-3"], ["node-7"]]
    plain = job_manifest(settings(tmp_path), LAUNCH_ONE, token="ours", environment={}, now=NOW)
    assert "affinity" not in plain["spec"]["template"]["spec"]
