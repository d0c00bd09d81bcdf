"""A small Hub on the loopback address that keeps data set repositories: made, committed to, listed and downloaded.

Speaks as much of the Hub's HTTP API as `huggingface_hub` needs for that, large files by LFS included.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
TOKEN = "hf_writes"
BY_LFS = (".parquet", ".zst")


@dataclass
class Repository:
    """Every commit's files, the newest last."""

    private: bool = False
    commits: list[tuple[str, str, Files]] = field(default_factory=list)
    """Id, message and files of each."""

    def __post_init__(self) -> None:
        self.add({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")

    @property
    def files(self) -> Files:
        return self.commits[-1][2]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def at(self, revision: str) -> Files | None:
        if revision == "main":
            return self.files
        return next((files for commit, _, files in self.commits if commit == revision), None)

    def add(self, files: Files, message: str) -> str:
        told = f"{len(self.commits)}{message}{sorted(files)}"
        commit = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        self.commits.append((commit, message, files))
        return commit


@dataclass
class DataSetHub:
    """What the Hub holds; change it while it serves."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """What was uploaded by LFS, by SHA-256."""
    refuse_commits_after: int | None = None
    """Commits, from now on, after which it answers that it is in trouble."""
    heard: list[str] = field(default_factory=list)
    """Every request's method and path."""


@contextmanager
def running_data_set_hub() -> Iterator[DataSetHub]:
    hub = DataSetHub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    held: DataSetHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(found[1], found[2])
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3])
        else:
            self._answer(404, {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, body = self._path(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", path):
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(BY_LFS) else "regular"}
                for one in json.loads(body)["files"]
            ]
            self._answer(200, {"files": [{**one, "shouldIgnore": False} for one in modes]})
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines() if line])
        else:
            self._answer(404, {})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.held.objects[self._path().rsplit("/", 1)[-1]] = body
        self._answer(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.held.repositories:
            told = {"error": "You already created this dataset repo", "url": f"{self.held.url}/datasets/{name}"}
            self._answer(409, told)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.held.repositories[name] = Repository(private=private)
        self._answer(200, {"url": f"{self.held.url}/datasets/{name}", "id": name, "name": name})

    def _info(self, name: str, revision: str) -> None:
        repository = self.held.repositories.get(name)
        files = repository.at(revision) if repository else None
        if repository is None or files is None:
            self._missing(repository)
            return
        sha = repository.head if revision == "main" else revision
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._answer(200, {"id": name, "sha": sha, "private": repository.private, "siblings": siblings})

    def _tree(self, name: str, revision: str) -> None:
        repository = self.held.repositories.get(name)
        files = repository.at(revision) if repository else None
        if files is None:
            self._missing(repository)
            return
        entries = []
        for path, content in sorted(files.items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_id(content)}
            if path.endswith(BY_LFS):
                sha256 = hashlib.sha256(content).hexdigest()
                entry |= {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}, "oid": "0" * 40}
            entries.append(entry)
        self._answer(200, entries)

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self.held.repositories.get(name)
        files = repository.at(revision) if repository else None
        if repository is None or files is None or path not in files:
            self._missing(repository, code="EntryNotFound")
            return
        headers = {"X-Repo-Commit": repository.head, "ETag": f'"{_git_id(files[path])}"'}
        self._send(200, files[path], headers)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.held.url}/upload/{one['oid']}"}},
            }
            for one in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.held.repositories[name]
        if self.held.refuse_commits_after is not None:
            if self.held.refuse_commits_after == 0:
                self._answer(422, {"error": "The Hub is in trouble."})
                return
            self.held.refuse_commits_after -= 1
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit") not in (None, repository.head):
            self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.held.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.add(files, head["summary"])
        url = f"{self.held.url}/datasets/{name}/commit/{commit}"
        self._answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _missing(self, repository: Repository | None, *, code: str = "RevisionNotFound") -> None:
        self._send(404, b"{}", {"X-Error-Code": code if repository else "RepoNotFound"})

    def _answer(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.held.heard.append(f"{self.command} {path}")
        return path

    def log_message(self, format: str, *args: object) -> None:
        pass


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
