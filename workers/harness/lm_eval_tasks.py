"""How this lm-eval finds, loads and groups its tasks: 0.4.12 and later do it otherwise than 0.4.10 and 0.4.11.

Everything else of the harness works alike on all of them. Knows nothing of which tasks may run.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

IS_EARLIER = importlib.util.find_spec("lm_eval.tasks.manager") is None
"""lm-eval is 0.4.10 or 0.4.11."""


class Kind(StrEnum):
    TASK = "task"
    PY_TASK = "python_task"
    GROUP = "group"
    TAG = "tag"


@dataclass(frozen=True)
class Entry:
    """A name that lm-eval knows."""

    name: str
    kind: Kind
    yaml_path: Path | None
    """None of a tag."""
    members: tuple[str, ...] = ()
    """Of a tag: the names of its tasks, in the order in which lm-eval would take them."""


def scan(folders: Iterable[Path]) -> dict[str, Entry]:
    """Every name in these folders' task files; later folders win."""
    return _scan_earlier(folders) if IS_EARLIER else _scan(folders)


def read_config(file: Path) -> dict[str, Any]:
    """A task file's content, includes merged, without importing what its functions name."""
    if IS_EARLIER:
        config: dict[str, Any] = _utils().load_yaml_config(str(file), mode="simple")
        return config
    loader: Any = importlib.import_module("lm_eval.tasks._yaml_loader")
    config = loader.load_yaml(file, resolve_func=False)
    return config


def make_manager(index: Mapping[str, Entry], metadata: dict[str, Any]) -> Any:
    """lm-eval's TaskManager over an index that is already there: its own reads 14,000 files at every start."""
    return _manager_earlier(index, metadata) if IS_EARLIER else _manager(index, metadata)


def watch_functions(refuse: Callable[[str, Path], None]) -> None:
    """Have `refuse` look at each function that a task file names, with the file's folder, before it is imported."""
    if IS_EARLIER:
        utils = _utils()
        imported = utils.import_function

        def watched_earlier(loader: Any, node: Any, yaml_path: Path) -> Any:
            refuse(loader.construct_scalar(node), yaml_path.parent)
            return imported(loader, node, yaml_path=yaml_path)

        utils.import_function = watched_earlier
        return
    module: Any = importlib.import_module("lm_eval.tasks._yaml_loader")
    original = module._import_func_in_yml

    def watched(qualified: str, base: Path) -> Any:
        refuse(qualified, base)
        return original(qualified, base)

    module._import_func_in_yml = watched


def leaves(loaded: Mapping[Any, Any]) -> dict[str, Any]:
    """Task objects by name, of what lm-eval's `evaluate` is given to evaluate, in its order."""
    if not IS_EARLIER:
        return dict(loaded["tasks"])
    return dict(_leaves_earlier(loaded))


def _utils() -> Any:
    return importlib.import_module("lm_eval.utils")


def _scan(folders: Iterable[Path]) -> dict[str, Entry]:
    index: Any = importlib.import_module("lm_eval.tasks._index")
    kinds = {index.Kind.TASK: Kind.TASK, index.Kind.PY_TASK: Kind.PY_TASK, index.Kind.GROUP: Kind.GROUP,
             index.Kind.TAG: Kind.TAG}  # fmt: skip
    return {
        name: Entry(
            name,
            kinds[entry.kind],
            entry.yaml_path,
            tuple(sorted(entry.tags)) if entry.kind is index.Kind.TAG else (),
        )
        for name, entry in index.TaskIndex.build(list(folders)).items()
    }


def _manager(index: Mapping[str, Entry], metadata: dict[str, Any]) -> Any:
    own: Any = importlib.import_module("lm_eval.tasks._index")
    manager_module: Any = importlib.import_module("lm_eval.tasks.manager")
    factory: Any = importlib.import_module("lm_eval.tasks._factory")
    kinds = {kind: getattr(own.Kind, kind.name) for kind in Kind}
    manager = manager_module.TaskManager.__new__(manager_module.TaskManager)
    manager.include_path = None
    manager.metadata = metadata
    manager._factory = factory.TaskFactory(meta=metadata)
    manager._index = {
        name: own.Entry(name=name, kind=kinds[entry.kind], yaml_path=entry.yaml_path, tags=set(entry.members))
        for name, entry in index.items()
    }
    names = {kind: sorted(name for name, entry in index.items() if entry.kind is kind) for kind in Kind}
    manager._all_tasks = sorted(index)
    manager._all_subtasks = sorted(names[Kind.TASK] + names[Kind.PY_TASK])
    manager._all_groups = names[Kind.GROUP]
    manager._all_tags = names[Kind.TAG]
    return manager


def _scan_earlier(folders: Iterable[Path]) -> dict[str, Entry]:
    tasks: Any = importlib.import_module("lm_eval.tasks")
    scanner = tasks.TaskManager(include_defaults=False)
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        found |= scanner._get_task_and_group(str(folder))
    return {
        name: Entry(
            name,
            Kind(entry["type"]),
            Path(entry["yaml_path"]) if isinstance(entry["yaml_path"], str) else None,
            tuple(entry["task"]) if entry["type"] == "tag" else (),
        )
        for name, entry in found.items()
    }


def _manager_earlier(index: Mapping[str, Entry], metadata: dict[str, Any]) -> Any:
    tasks: Any = importlib.import_module("lm_eval.tasks")
    rows = {
        name: {"type": entry.kind.value, "yaml_path": str(entry.yaml_path) if entry.yaml_path else -1}
        | ({"task": list(entry.members)} if entry.kind is Kind.TAG else {})
        | ({"task": -1} if entry.kind is Kind.GROUP else {})
        for name, entry in index.items()
    }

    class Indexed(tasks.TaskManager):  # type: ignore[misc]  # lm-eval has no types for mypy
        def initialize_tasks(self, **ignored: Any) -> dict[str, dict[str, Any]]:
            return rows

    return Indexed(metadata=metadata)


def _leaves_earlier(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, member in loaded.items():
        if isinstance(member, Mapping):
            yield from _leaves_earlier(member)
        else:
            yield str(name), member
