"""lm-eval's task objects over a sheet's frozen documents and instances: filters and metrics are theirs, data is not.

`install` changes lm-eval's Task classes for this process: nothing is downloaded, no document is processed or shuffled
again, no few-shot example drawn. What is left of a task is how it judges answers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lm_eval.api.instance import Instance as LmEvalInstance
from lm_eval.api.task import ConfigurableTask, Task

from orchestrator.wire import FailureKind
from workers.harness import freeze
from workers.sheets import Document, Instance
from workers.stage import StageFailure


class FrozenDocuments:
    """Looks to lm-eval like the dataset's split: as long as the original, though a limit may have kept less of it."""

    def __init__(self, contents: list[Any], *, total: int, features: list[str]) -> None:
        self._contents = contents
        self._total = total
        self.features = dict.fromkeys(features)

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Any]:
        return iter(self._contents)

    def __getitem__(self, index: int) -> Any:
        return self._contents[index]


@dataclass
class FrozenTask:
    documents: FrozenDocuments
    instances: list[LmEvalInstance] = field(default_factory=list)


@dataclass
class FrozenSheet:
    tasks: dict[str, FrozenTask]
    requests: dict[int, list[list[str]]]
    """By `id()` of an lm-eval instance: for each repeat the hashes that answer it."""


def thaw_sheet(documents: Iterable[Document], instances: Iterable[Instance], plan: dict[str, Any]) -> FrozenSheet:
    """Rebuild what prepare had in its hands.

    Raises:
        StageFailure: the sheet contradicts itself.
    """
    contents: dict[str, dict[int, Any]] = {}
    for document in documents:
        contents.setdefault(document.task, {})[document.document] = freeze.thaw(document.content)
    tasks = {}
    for name, facts in plan["task_facts"].items():
        found = contents.get(name, {})
        if sorted(found) != list(range(len(found))):
            raise _mismatch(f"documents of task {name} are missing")
        ordered = [found[number] for number in range(len(found))]
        frozen = FrozenDocuments(ordered, total=facts["documents"], features=facts["features"] or [])
        tasks[name] = FrozenTask(frozen)
    requests: dict[int, list[list[str]]] = {}
    texts: dict[str, str] = {}
    for instance in instances:
        if instance.task not in tasks or instance.document not in contents[instance.task]:
            raise _mismatch(f"document {instance.document} of task {instance.task} is not in it")
        # Choices of a document share their context; one copy of it serves all.
        arguments = tuple(
            texts.setdefault(argument, argument) if isinstance(argument, str) else freeze.thaw(argument)
            for argument in instance.arguments
        )
        rebuilt = LmEvalInstance(
            request_type=instance.request_type,
            doc=contents[instance.task][instance.document],
            arguments=arguments,
            idx=instance.index,
            metadata=(instance.task, instance.document, len(instance.requests)),
        )
        tasks[instance.task].instances.append(rebuilt)
        requests[id(rebuilt)] = instance.requests
    return FrozenSheet(tasks, requests)


def install(sheet: FrozenSheet) -> None:
    """Make every task object of this process one of the sheet's."""

    def name(task: Any) -> str:
        found = str(task.config.task)
        if found not in sheet.tasks:
            raise _mismatch(f"task {found} is not in it")
        return found

    def download(task: Any, *args: Any, **kwargs: Any) -> None:
        task.dataset = {}

    def build_all_requests(task: Any, **kwargs: Any) -> None:
        task._instances = sheet.tasks[name(task)].instances

    Task.download = download
    Task.build_all_requests = build_all_requests
    Task.eval_docs = property(lambda task: sheet.tasks[name(task)].documents)
    ConfigurableTask.download = download
    ConfigurableTask.fewshot_docs = lambda task: None


def _mismatch(what: str) -> StageFailure:
    return StageFailure(FailureKind.SHEET, f"The sheet does not fit this harness: {what}. Prepare the benchmark again.")
