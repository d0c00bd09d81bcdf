"""Launches workers as Jobs of a low PriorityClass, through the Kubernetes API with plain HTTPS.

Five calls need no client library: inside a cluster a pod's own token and certificate are files, and from outside
`kubectl proxy` brings whatever way of logging in a cluster has. A Job's name is its launch's, so that asking twice
makes one. The broker's address, which holds a password, comes from a Secret and is in no manifest.
"""

import os
import ssl
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from orchestrator.clusters.config import KubernetesSettings
from orchestrator.clusters.contract import ClusterAway, ClusterView, Launch, LaunchRefused
from orchestrator.clusters.kubernetes_objects import TOKEN, job_manifest, read_gpus, read_jobs, read_others

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 20.0
PAGE = 500
MOST_PAGES = 200


class Kubernetes:
    """One kind of GPU of one cluster. `token` labels the jobs of this entry."""

    def __init__(self, settings: KubernetesSettings, *, token: str) -> None:
        self._settings = settings
        self._token = token

    def look(self, siblings: Collection[str] = ()) -> ClusterView:
        settings = self._settings
        with self._client() as client:
            chosen = ",".join(f"{name}={value}" for name, value in settings.node_labels.items())
            nodes = self._list(client, "/api/v1/nodes", labelSelector=chosen)
            living = "status.phase!=Succeeded,status.phase!=Failed"
            pods = self._list(client, "/api/v1/pods", fieldSelector=living)
            jobs = self._list(client, self._jobs, labelSelector=f"{TOKEN}={self._token}")
        try:
            total, idle, room = read_gpus(nodes, pods, settings)
            notes = () if total else (f"No node that is up has {settings.resource} and the labels of node_labels.",)
            return ClusterView(
                what=settings.resource,
                total=total,
                idle=idle,
                room=room,
                others=read_others(pods, settings, tokens={self._token, *siblings}, nodes=nodes),
                jobs=read_jobs(jobs, pods),
                notes=notes,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ClusterAway(f"Kubernetes answered with objects that are not understood ({error!r}).") from error

    def launch(self, launch: Launch, environment: Mapping[str, str]) -> str:
        now = datetime.now(UTC)
        manifest = job_manifest(self._settings, launch, token=self._token, environment=environment, now=now)
        with self._client() as client:
            answer = self._send(client, "POST", self._jobs, json=manifest)
        if answer.is_success or answer.status_code == httpx.codes.CONFLICT:
            return launch.worker
        if answer.is_client_error and answer.status_code not in (401, 408, 429):
            raise LaunchRefused(f"Kubernetes refused the worker's Job: {_said(answer)}")
        raise ClusterAway(f"Kubernetes did not take the worker's Job: {_said(answer)}")

    def cancel(self, handle: str) -> None:
        # In the foreground the Job is listed until its pod is gone, and until then it holds its GPU.
        with self._client() as client:
            answer = self._send(client, "DELETE", f"{self._jobs}/{handle}", json={"propagationPolicy": "Foreground"})
        if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
            raise ClusterAway(f"Kubernetes did not end Job {handle}: {_said(answer)}")

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._settings.namespace}/jobs"

    def _client(self) -> httpx.Client:
        """A client with the token as it is now: it is changed every hour."""
        settings = self._settings
        token_file, ca_file, api = settings.token_file, settings.ca_file, settings.api
        if api is None:
            host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            if not host:
                raise ClusterAway(
                    "This process runs in no pod, and the clusters file names no `api`. Start `kubectl proxy` and set "
                    'api = "http://127.0.0.1:8001".'
                )
            api = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
            token_file, ca_file = token_file or ACCOUNT / "token", ca_file or ACCOUNT / "ca.crt"
        headers = {"accept": "application/json"}
        try:
            if token_file is not None:
                headers["authorization"] = f"Bearer {token_file.read_text(encoding='ascii').strip()}"
            verify: Any = True
            if ca_file is not None:
                verify = ssl.create_default_context(cafile=str(ca_file))
        except (OSError, ValueError) as error:
            raise ClusterAway(f"The token or certificate for Kubernetes cannot be read: {error}.") from error
        # A proxy of the environment is not asked: it would see the token.
        return httpx.Client(base_url=api, headers=headers, verify=verify, timeout=TIMEOUT_SECONDS, trust_env=False)

    def _list(self, client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
        """Every object of a list, page by page."""
        found: list[dict[str, Any]] = []
        asked = {name: value for name, value in query.items() if value} | {"limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            answer = self._send(client, "GET", path, params=asked)
            if not answer.is_success:
                raise ClusterAway(f"Kubernetes does not list {path.rpartition('/')[2]}: {_said(answer)}")
            try:
                page = answer.json()
                found += page["items"]
                more = (page.get("metadata") or {}).get("continue")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ClusterAway(f"What answers at {client.base_url} is not Kubernetes.") from error
            if not more:
                return found
            asked["continue"] = more
        raise ClusterAway(f"Kubernetes lists more than {PAGE * MOST_PAGES} {path.rpartition('/')[2]}.")

    def _send(self, client: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return client.request(method, path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClusterAway(f"Kubernetes does not answer at {client.base_url} ({type(error).__name__}).") from error


def _said(answer: httpx.Response) -> str:
    """The server's message, or its status."""
    try:
        said = str(answer.json()["message"])[:300]
    except (ValueError, KeyError, TypeError):
        said = ""
    hint = " Apply deploy/kubernetes/rbac.yaml." if answer.status_code == httpx.codes.FORBIDDEN else ""
    return f"{said or 'status'} ({answer.status_code}).{hint}"
