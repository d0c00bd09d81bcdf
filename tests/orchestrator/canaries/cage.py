"""A yard with an artifact store, evaluations whose answers are in it, and a keeper that is asked to look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlmodel import col, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.canaries import canary
from orchestrator.canaries.drift import Bounds
from orchestrator.canaries.keeper import Keeper
from orchestrator.tables import Canary, CanaryRun, Notice, Worker
from orchestrator.wire import EngineInfo, InferWork, Order, Stage, identity_digest
from tests.orchestrator.yard import ENGINE, MODEL_PART, Yard
from workers import segments, sheets
from workers.segments import Generated, Response, Scored

NEW = ENGINE.model_copy(update={"version": "2.0"})
DOCUMENTS = 10

Answers = Callable[[sheets.Request], Response]


def usual(request: sheets.Request) -> Response:
    """What the first engine answered."""
    seed = int(request.id[:6], 16)
    if isinstance(request, sheets.Loglikelihood):
        return Scored(request.id, -1.0 - seed % 1000 / 100, seed % 2 == 0)
    return Generated(request.id, f"answer {seed % 7}", [seed % 7], "stop")


def shifted(by: float) -> Answers:
    def answer(request: sheets.Request) -> Response:
        found = usual(request)
        return Scored(found.id, found.logprob + by, found.greedy) if isinstance(found, Scored) else found

    return answer


@dataclass
class Cage:
    yard: Yard
    store: ArtifactStore
    bounds: Bounds = field(default_factory=Bounds)

    def finished(self) -> int:
        """An evaluation that an engine worker of version 1.0 has answered, with sheets and responses in the store."""
        evaluation = self.yard.submit()
        self.yard.workers()
        for order in self.yard.tick():
            self._write_sheet(order)
            self.yard.complete(order)
        (order,) = self.yard.tick()
        self.answer(order)
        self.yard.finish()
        return evaluation

    def answer(self, order: Order, answers: Answers = usual, *, engine: EngineInfo = ENGINE, **fields: Any) -> None:
        """Answer every request of an order's sheets as an engine child and its supervisor would."""
        self.seal(order, answers, engine=engine)
        done = {"engine": engine, "computed": 60, "seconds": 2.0, "total_seconds": 3.0} | fields
        assert self.yard.complete(order, **done).accepted

    def seal(self, order: Order, answers: Answers, *, engine: EngineInfo = ENGINE) -> None:
        work = order.work
        assert isinstance(work, InferWork)
        header = segments.Header(identity_digest(work.identity), order.attempt, engine.model_dump(mode="json"))
        requests = [
            request
            for key in work.sheets.values()
            for request in sheets.read_requests(self.store.fetch_folder(key, Path("/nowhere")))
        ]
        with TemporaryDirectory() as folder:
            path = segments.seal(Path(folder), 1, header, map(answers, requests))
            self.store.put_file(f"{order.output}/{path.name}", path)

    def _write_sheet(self, order: Order) -> None:
        """ARC is ten documents with four choices each, MMLU (sic) ten generated answers."""
        assert order.work.stage is Stage.PREPARE
        generates = order.work.benchmark.name == "MMLU"
        requests: list[sheets.Request] = []
        instances = []
        for document in range(DOCUMENTS):
            for index in range(1 if generates else 4):
                ids = [document + 1, index + 1]
                if generates:
                    facts: dict[str, Any] = {"max_tokens": 4, "stop": ["."], "sampling": {}, "seed": None}
                    name = sheets.generate_id(ids, **facts)
                    requests.append(sheets.Generate(name, ids, **facts))
                else:
                    name = sheets.loglikelihood_id(ids, [9])
                    requests.append(sheets.Loglikelihood(name, ids, [9]))
                instances.append(sheets.Instance("t", document, index, "loglikelihood", ["a", "b"], [[name]]))
        with TemporaryDirectory() as made:
            folder = Path(made)
            sheets.write_lines(folder / "requests.jsonl.zst", requests)
            sheets.write_lines(folder / "instances.jsonl.zst", instances)
            sheets.write_info(
                folder,
                sheets.SheetInfo(
                    benchmark=order.work.benchmark.name, rules="vllm", requests=len(requests), instances=len(instances),
                    documents=DOCUMENTS, truncated=0, longest=6, identity=MODEL_PART, plan={}, provenance={},
                ),
            )  # fmt: skip
            self.store.put_folder(order.output, folder)

    # What operators and the keeper do

    def set(self, evaluation: int, *, asked: int = 40) -> int:
        with db.session(self.yard.engine) as session:
            found = canary.set_canary(session, evaluation, asked=asked, by="ada", now=self.yard.now).id
            assert found is not None
            return found

    def look(self) -> None:
        Keeper(self.yard.engine, self.store, self.bounds).round(self.yard.now)

    def watched(self) -> int:
        """A present canary, and no build that was run of it yet."""
        number = self.set(self.finished())
        self.silence()
        self.look()
        return number

    def silence(self) -> None:
        """Every worker so far has long not been heard of."""
        self.yard.wait(3600)

    def accept(self, build: str) -> None:
        with db.session(self.yard.engine) as session:
            canary.accept(session, build, by="ada", now=self.yard.now)

    def run_again(self, worker: str) -> None:
        with db.session(self.yard.engine) as session:
            canary.run_again(session, worker, by="ada", now=self.yard.now)

    def off(self) -> canary.Ended:
        with db.session(self.yard.engine) as session:
            return canary.end_canaries(session, by="ada", now=self.yard.now)

    # What the database says

    def canary(self, number: int) -> Canary:
        with db.session(self.yard.engine, read_only=True) as session:
            return session.exec(select(Canary).where(Canary.id == number)).one()

    def runs(self) -> list[CanaryRun]:
        with db.session(self.yard.engine, read_only=True) as session:
            return list(session.exec(select(CanaryRun).order_by(col(CanaryRun.id))))

    def states(self) -> list[str]:
        return [run.state.value for run in self.runs()]

    def build(self, worker: str) -> str:
        with db.session(self.yard.engine, read_only=True) as session:
            return session.exec(select(Worker.build).where(Worker.name == worker)).one()

    def notices(self) -> list[Mapping[str, Any]]:
        with db.session(self.yard.engine, read_only=True) as session:
            return [one.facts for one in session.exec(select(Notice).where(Notice.event == "canary_keeps_out"))]
