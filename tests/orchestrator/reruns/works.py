"""A yard whose harness changes: sheets with facts, by suite version, and plans that are moved step by step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import zstandard
from sqlmodel import col, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.board import Board, read_board
from orchestrator.lifecycle import EvaluationState
from orchestrator.reruns import plans, switching
from orchestrator.reruns.facts import FACTS_FILE, FORMAT
from orchestrator.reruns.runner import Runner
from orchestrator.suite_versions import record_suites, shown_suite
from orchestrator.tables import Evaluation, Rerun, RerunBenchmark, ShownVersion
from orchestrator.wire import Order, Stage
from tests.orchestrator.yard import MODEL_PART, Yard

OLD, NEW = "1", "1+lm_eval-0.4.14"


@dataclass(frozen=True)
class Sheet:
    """What a benchmark asks and how it judges."""

    requests: int = 8
    first: int = 0
    """Number of the first request: sheets share those of equal numbers."""
    code: str = "c1"
    failure: str = ""
    kind: str = "task_refused"
    """Of the failure: by default one that speaks of the task."""
    judged_by: str = "j1"
    """Empty of a worker that does not say it."""


@dataclass
class Works:
    yard: Yard
    store: ArtifactStore
    sheets: dict[tuple[str, str], Sheet] = field(default_factory=dict)
    """By suite version and benchmark; a plain sheet where none is given."""
    classes: dict[int, str] = field(default_factory=dict)
    """Class of an old evaluation's sheets; `plain` where none is given."""
    accuracy: dict[tuple[str, str], float] = field(default_factory=dict)
    scored_by: dict[int, str] = field(default_factory=dict)
    """What judged an evaluation's scores, where it was not what its sheet says."""
    orders: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runner = Runner(self.yard.engine, self.yard.suites, self.store)
        with db.session(self.yard.engine) as session:
            record_suites(session, self.yard.suites.values(), now=self.yard.now)

    def submit(self, number: int, *, of_class: str = "plain", **fields: Any) -> int:
        evaluation = self.yard.submit(revision=f"{number:040x}", **fields)
        self.classes[evaluation] = of_class
        return evaluation

    def finished(self, count: int, **fields: Any) -> list[int]:
        found = [self.submit(number + 1, **fields) for number in range(count)]
        self.work()
        return found

    def plan(self, *, harness: str | None = "0.4.14", **choices: Any) -> int:
        with db.session(self.yard.engine) as session:
            made = plans.make_plan(
                session,
                self.yard.suites,
                suite="small",
                harness=harness,
                choices=plans.Choices(**choices),
                now=self.yard.now,
            )
            assert made.id is not None
            return made.id

    def planned(self, **choices: Any) -> int:
        """A plan that has compared everything."""
        plan = self.plan(**choices)
        self.go_on()
        return plan

    def start(self, plan: int, **choices: Any) -> None:
        with db.session(self.yard.engine) as session:
            plans.start(session, plan, choices=plans.Choices(**choices), now=self.yard.now)

    def done(self, **choices: Any) -> int:
        """A plan that is through."""
        plan = self.planned(**choices)
        self.start(plan)
        self.go_on()
        return plan

    def switch(self, plan: int) -> None:
        with db.session(self.yard.engine) as session:
            switching.switch_to_plan(session, self.yard.suites, plans.read(session, plan), now=self.yard.now)

    def back(self) -> None:
        with db.session(self.yard.engine) as session:
            switching.back(session, self.yard.suites, suite="small", now=self.yard.now)

    def look(self) -> bool:
        self.yard.wait(1)
        return self.runner.look(self.yard.now)

    def go_on(self) -> None:
        """Look and work until neither does anything."""
        self.runner.looked_at.clear()
        self.runner.chose_none.clear()
        for _ in range(200):
            busy = self.look()
            if not self.work() and not busy and not self.look():
                return
        raise AssertionError("it never comes to rest")

    def work(self) -> int:
        """Answer every order until nothing more is sent; returns how many there were."""
        self.yard.workers()
        count = 0
        while orders := self.yard.tick():
            for order in orders:
                self.answer(order)
            count += len(orders)
        return count

    def answer(self, order: Order) -> None:
        self.orders.append(order)
        version = self.yard.evaluation(order.evaluation).suite_version
        if order.work.stage is Stage.PREPARE:
            sheet = self.sheets.get((version, order.work.benchmark.name), Sheet())
            if sheet.failure:
                self.yard.report(order.attempt, "failed", failure=sheet.kind, sentence=sheet.failure)
                return
            old = self.yard.evaluation(order.evaluation).rerun_of or order.evaluation
            named = f"{self.classes.get(old, 'plain')}-{order.work.benchmark.name}"
            identity = {**MODEL_PART, "weights": order.work.model.revision}
            packed = pack_facts(order.work.benchmark.name, sheet, named=named, identity=identity)
            self.store.put_bytes(f"{order.output}/{FACTS_FILE}", packed)
            judged = {"judged_by": sheet.judged_by}
            self.yard.complete(order, sheet_class=named, identity=identity, requests=sheet.requests, provenance=judged)
        elif order.work.stage is Stage.SCORE:
            sheet = self.sheets.get((version, order.work.benchmark.name), Sheet())
            judged = {"judged_by": self.scored_by.get(order.evaluation, sheet.judged_by)}
            accuracy = self.accuracy.get((version, order.work.benchmark.name), 0.5)
            self.yard.complete(order, accuracy=accuracy, provenance=judged)
        else:
            self.yard.complete(order)

    # What the database says

    def read(self, plan: int) -> Rerun:
        with db.session(self.yard.engine, read_only=True) as session:
            return plans.read(session, plan)

    def verdicts(self, plan: int) -> dict[tuple[str, str], str]:
        with db.session(self.yard.engine, read_only=True) as session:
            rows = session.exec(select(RerunBenchmark).where(RerunBenchmark.rerun_id == plan)).all()
        return {(row.sheet_class, row.benchmark): row.verdict for row in rows}

    def again(self, old: int) -> Evaluation:
        with db.session(self.yard.engine, read_only=True) as session:
            return session.exec(
                select(Evaluation)
                .where(Evaluation.rerun_of == old, col(Evaluation.state) != EvaluationState.CANCELLED)
                .order_by(col(Evaluation.id).desc())
            ).first() or Evaluation(submission_id=0, suite="", suite_version="", engine="vllm", key="")

    def board(self) -> Board:
        with db.session(self.yard.engine, read_only=True) as session:
            return read_board(session, shown_suite(session, self.yard.suites["small"]))

    def shown(self) -> Mapping[str, Any]:
        """Everything that the board shows: its version, and every fact of each row."""
        board = self.board()
        return {"suite_version": board.suite.version, "ranked": board.ranked, "apart": board.apart}

    def history(self) -> list[str]:
        with db.session(self.yard.engine, read_only=True) as session:
            return list(session.exec(select(ShownVersion.version).order_by(col(ShownVersion.id))).all())

    def stages(self, evaluation: int) -> list[Stage]:
        """The stages that workers were ordered for an evaluation, in order."""
        return [order.work.stage for order in self.orders if order.evaluation == evaluation]

    def inferred(self, evaluation: Evaluation) -> list[Mapping[str, str]]:
        """The sheets of each inference that workers were ordered for an evaluation."""
        works = [order.work for order in self.orders if order.evaluation == evaluation.id]
        return [work.sheets for work in works if work.stage is Stage.INFER]


def pack_facts(benchmark: str, sheet: Sheet, *, named: str, identity: Mapping[str, Any]) -> bytes:
    """A facts file of one task, as `orchestrator.reruns.facts` reads it."""
    numbers = range(sheet.first, sheet.first + sheet.requests)
    task = {
        "version": "1",
        "documents": 2,
        "content": "d",
        "targets": "t",
        "instances": "i",
        "dataset": "local",
        "scoring": {"code": sheet.code, "core": "k", "packages": {}, "probe": "p"},
        "requests": sheet.requests,
    }
    header = {
        "format": FORMAT,
        "benchmark": benchmark,
        "harness": "lm_eval",
        "sheet_class": named,
        "identity": dict(identity),
        "groups": "g",
        "judged_by": sheet.judged_by,
        "tasks": {benchmark.lower(): task},
    }
    entries = b"".join(number.to_bytes(16, "big") + (10).to_bytes(4, "little") for number in numbers)
    return zstandard.ZstdCompressor().compress(json.dumps(header).encode() + b"\n" + entries)
