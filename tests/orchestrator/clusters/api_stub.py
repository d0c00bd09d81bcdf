"""A small Kubernetes API server over real HTTP: lists, makes and deletes the few objects that the launcher knows."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JOBS = "/apis/batch/v1/namespaces/evalyard/jobs"
TOKEN = "stub-token"


@dataclass
class Api:
    """What the server holds; `refuse` is the status and message of the next answer that is no success."""

    url: str = ""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)
    refuse: tuple[int, str] | None = None
    page: int = 1
    """Objects of a page: less than the launcher asks for."""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        self.requests.append((method, path, query))
        if self.refuse is not None:
            code, message = self.refuse
            return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}
        if method == "GET" and path == "/api/v1/nodes":
            return 200, self._list(self._selected(self.nodes, query), query)
        if method == "GET" and path == "/api/v1/pods":
            return 200, self._list(self.pods, query)
        if method == "GET" and path == JOBS:
            return 200, self._list(self._selected(list(self.jobs.values()), query), query)
        if method == "POST" and path == JOBS:
            name = body["metadata"]["name"]
            if name in self.jobs:
                return 409, {"kind": "Status", "message": f'jobs.batch "{name}" already exists', "code": 409}
            self.jobs[name] = body | {"status": {}}
            return 201, self.jobs[name]
        name = path.removeprefix(f"{JOBS}/")
        if method == "DELETE" and name in self.jobs:
            assert body == {"propagationPolicy": "Foreground"}
            return 200, self.jobs.pop(name)
        return 404, {"kind": "Status", "message": f"{path} not found", "code": 404}

    def _selected(self, objects: list[dict[str, Any]], query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = [label.split("=", 1) for text in query.get("labelSelector", []) for label in text.split(",")]
        return [
            one for one in objects if all((one["metadata"].get("labels") or {}).get(k) == value for k, value in wanted)
        ]

    def _list(self, objects: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
        start = int(query.get("continue", ["0"])[0])
        more = {"continue": str(start + self.page)} if start + self.page < len(objects) else {}
        return {"metadata": more, "items": objects[start : start + self.page]}


@contextmanager
def running_api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            split = urlsplit(self.path)
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                code, content = 401, {"kind": "Status", "message": "Unauthorized", "code": 401}
            else:
                code, content = api.answer(self.command, split.path, parse_qs(split.query), body)
            payload = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            """A test's output is no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
