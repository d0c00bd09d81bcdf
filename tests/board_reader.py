"""A reader of the board who never looks away: asks the site again and again and judges every answer by itself."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from orchestrator.results.values import BenchmarkValue, average
from orchestrator.settings import HubSettings
from orchestrator.suites import Suite
from submissions.context import open_hub
from submissions.site import make_site

AWAY = (500, 503)
"""What the site answers while its database is taken away."""


@dataclass
class BoardReader:
    settings: HubSettings
    suite: str
    versions: Mapping[str, Suite]
    """Every version that may come, by its name."""
    answers: int = 0
    seen: list[str] = field(default_factory=list)
    """Versions in the order in which they were first shown, each change once."""
    faults: list[str] = field(default_factory=list)
    averages: dict[int, float] = field(default_factory=dict)

    def __enter__(self) -> "BoardReader":
        self._stopping = threading.Event()
        site = make_site(open_hub(self.settings))
        self._site = TestClient(site, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def read(self) -> dict[str, Any]:
        """The board as it is shown now."""
        answer = self._site.get("/api/v1/board", params={"suite": self.suite})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _read_on(self) -> None:
        while not self._stopping.wait(0.02):
            answer = self._site.get("/api/v1/board", params={"suite": self.suite})
            if answer.status_code in AWAY:
                continue
            if answer.status_code != 200:
                self.faults.append(f"status {answer.status_code}: {answer.text[:200]}")
                continue
            self.answers += 1
            self.judge(answer.json())

    def judge(self, board: Mapping[str, Any]) -> None:
        """Note what no reader may ever see."""
        version = board["suite_version"]
        if not self.seen or self.seen[-1] != version:
            self.seen.append(version)
        suite = self.versions[version]
        for row in (*board["ranked"], *board["apart"]):
            number = row["evaluation"]
            if row["suite_version"] != version:
                self.faults.append(f"evaluation {number} of version {row['suite_version']} on a board of {version}")
            cells = {
                name: BenchmarkValue(value=cell["value"], raw=cell["raw"], stderr=cell["stderr"])
                for name, cell in row["benchmarks"].items()
            }
            if row["average"] != average(suite, cells):
                self.faults.append(f"evaluation {number}: {row['average']} is no average of {sorted(cells)}")
            if row["average"] is not None and self.averages.setdefault(number, row["average"]) != row["average"]:
                self.faults.append(f"evaluation {number} changed its average under version {version}")
