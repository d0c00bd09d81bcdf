"""A supervisor at work: real stage programs (scripted engine) and a real artifact store; only the hub is a stand-in."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.artifacts import ArtifactStore
from orchestrator.broker import BrokerLost, MessageTooLarge
from orchestrator.wire import EngineFamily, InferDone, InferWork, Model, Order, Update, identity_digest
from tests.services import processes_with
from workers import segments, sheets
from workers.devices import Devices
from workers.models.weights import Weights
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor

IDENTITY = {"weights": "sha256-0", "engine": "scripted", "device_type": "cpu"}
RESPONSES = f"responses/{identity_digest(IDENTITY)}"


@dataclass
class ListeningHub:
    """Keeps every update; asks to stop what is in `stops`; is away while `away` is set."""

    updates: list[Update] = field(default_factory=list)
    stops: dict[str, str] = field(default_factory=dict)
    away: threading.Event = field(default_factory=threading.Event)
    too_large: str = ""
    """Event of the updates that are too large for a message."""

    def send(self, update: Update) -> None:
        if self.away.is_set():
            raise BrokerLost("away")
        if update.event == self.too_large:
            raise MessageTooLarge("Update has 17.0 MB.")
        self.updates.append(update)

    def stop_requested(self, attempt: str) -> str | None:
        return self.stops.get(attempt)

    @property
    def events(self) -> list[str]:
        return [update.event for update in self.updates]


@dataclass
class Bench:
    """A supervisor with its store, its hub, and a sheet of requests."""

    supervisor: Supervisor
    hub: ListeningHub
    store: ArtifactStore
    scratch: Path
    model: Model
    requests: list[sheets.Loglikelihood]
    settings: WorkerSettings
    weights: Weights

    def order(self, attempt: str, **changes) -> Order:
        work = InferWork(
            model=changes.pop("model", self.model),
            identity=changes.pop("identity", IDENTITY),
            engine=EngineFamily.SCRIPTED,
            sheets=changes.pop("sheets", {"ARC": "sheets/1/ARC/p"}),
            settings=changes.pop("settings", {}),
            seal_seconds=0.05,
        )
        fields = {"lease_seconds": 60.0, "job": 1, "evaluation": 1, "output": f"{RESPONSES}/{attempt}"} | changes
        return Order(attempt=attempt, work=work, **fields)

    def give_devices(self, count: int, *, names: Sequence[str] = (), are_lent: bool = False, **settings) -> Devices:
        """From now on a supervisor that gives out devices; engines stay up unless `settings` says otherwise."""
        devices = Devices(count, names=names, are_lent=are_lent)
        self.settings = self.settings.model_copy(update={"worker_warm_seconds": 600.0, **settings})
        self.supervisor = Supervisor(
            self.settings, hub=self.hub, store=self.store, weights=self.weights, devices=devices
        )
        return devices

    def add_sheet(self, name: str, requests: Sequence[sheets.Loglikelihood]) -> dict[str, str]:
        """Put a sheet into the store; returns what an order asks for it by."""
        folder = self.scratch.with_name(name)
        folder.mkdir()
        sheets.write_lines(folder / "requests.jsonl.zst", requests)
        sheets.write_lines(folder / "instances.jsonl.zst", [])
        longest = max(request.length for request in requests)
        sheets.write_info(folder, sheets.SheetInfo(name, "vllm", len(requests), 0, 0, 0, longest, {}, {}, {}))
        self.store.put_folder(f"sheets/1/{name}/p", folder)
        return {name: f"sheets/1/{name}/p"}

    def start(self, order: Order) -> threading.Thread:
        thread = threading.Thread(target=self.supervisor.run, args=(order,))
        thread.start()
        return thread

    def answered(self) -> list[str]:
        """Hashes in every segment of the store, doubles included."""
        return [response.id for response in self.responses()]

    def responses(self) -> list[segments.Response]:
        keys = self.store.list("responses")
        return [response for key in keys for response in segments.read(self.store.fetch_file(key, self.scratch))[1]]

    def headers(self) -> list[segments.Header]:
        """Of every segment of the store."""
        return [segments.read(self.store.fetch_file(key, self.scratch))[0] for key in self.store.list(RESPONSES)]

    def done(self) -> InferDone:
        """What the last attempt has done."""
        done = self.hub.updates[-1].done
        assert isinstance(done, InferDone), self.hub.updates[-1]
        return done

    def stage_pids(self) -> dict[int, str]:
        return processes_with(str(self.scratch))


def slow(per_request: float) -> dict:
    return {"delay_seconds": per_request, "batch": 4}
