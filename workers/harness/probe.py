"""Lets lm-eval judge made-up answers to a few documents of each task, from filters to the numbers of groups.

lm-eval's scoring code is written otherwise in nearly every version and mostly does the same. Two versions that make the
same of these answers, on the benchmark's own documents, are taken to judge alike. The answers follow from the
documents alone, and nothing of them is ever a score.
"""

import copy
import dataclasses
import hashlib
import logging
import math
import os
import random
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy
from lm_eval.api.model import LM

from orchestrator.wire import canonical_json

log = logging.getLogger(__name__)

FEWEST_DOCUMENTS = 24
"""Of each task; up to seven more by its name, so that groups of equal tasks still show how they weigh them."""

BOOTSTRAP_ITERATIONS = 100

MOST_SECONDS = 120.0
"""CPU time that judging may take: an answer of no model's could keep a filter or a formula parser busy for ever."""

STYLES: tuple[Callable[[str], str], ...] = (
    lambda answer: f" {answer}",
    lambda answer: f"The answer is {answer}.",
    lambda answer: f"Let's think step by step. 3 + 4 = 7. So the answer is ({answer}).\n\nQ: And then?",
    lambda answer: f"#### {answer}",
    lambda answer: f"It follows that $x = \\boxed{{{answer}}}$. I hope it is correct.",
    lambda answer: "",
    lambda answer: f"{answer.upper()}, I think; or {answer.lower()}?",
    lambda answer: f"(A) is wrong, (B) is {answer}, so the answer is (C).",
    lambda answer: "I do not know: 1,250.50 or -7 %, no.",
    lambda answer: f"**{answer}**\n\nTherefore yes. True. valid",
    lambda answer: f"the answer is {answer}{answer} not {answer}",
    lambda answer: f"Final Answer: The final answer is {answer}. B",
)
"""Ways in which models word an answer: what filters look for, and what they must not find."""


class MadeUp(LM):  # type: ignore[misc]  # lm-eval has no types for mypy
    """Answers what a probe asks, by the documents alone."""

    def __init__(self, texts: Mapping[int, str]) -> None:
        super().__init__()
        self._texts = texts

    @property
    def tokenizer_name(self) -> str:
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        raise NotImplementedError("A probe asks nothing anew.")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(-8 * share, share < 0.3) for share in map(_share, requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [-200 * _share(request) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self._texts[id(request)] for request in requests]


@dataclasses.dataclass(frozen=True)
class Judged:
    """What became of the made-up answers, as digests."""

    tasks: dict[str, str]
    groups: str


def judge(evaluate: Callable[..., Any], given: dict[str, Any], tasks: Mapping[str, Any]) -> Judged | None:
    """Let lm-eval's `evaluate` judge made-up answers; None where it cannot. Call it when all requests are written down.

    `tasks` are the objects whose requests were built; the sheet's documents and instances stay as they are.
    """
    texts: dict[int, str] = {}
    kept = {name: task.instances for name, task in tasks.items()}
    try:
        for name, task in tasks.items():
            _shorten(name, task, texts)
        random.seed(0)
        numpy.random.seed(0)
        os.environ["DISABLE_MULTIPROC"] = "1"
        chat = {"apply_chat_template": False, "system_instruction": None}
        with _within(MOST_SECONDS):
            results = evaluate(
                **given | chat | {"lm": MadeUp(texts), "limit": None, "bootstrap_iters": BOOTSTRAP_ITERATIONS}
            )
        return _digests(results, tasks)
    except Exception as error:
        log.warning("made-up answers could not be judged: %s: %s", type(error).__name__, error)
        return None
    finally:
        for name, task in tasks.items():
            task._instances = kept[name]


class _TooLong(Exception):
    """The made-up answers keep a scorer busy."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise _TooLong in this block after so much CPU time; only a process's main thread is ended so."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _TooLong(f"more than {seconds:g} s of CPU time")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)  # again, where a scorer catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _shorten(name: str, task: Any, texts: dict[int, str]) -> None:
    """Leave the task a few of its documents, with copies of their instances that nobody has answered."""
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    wanted = FEWEST_DOCUMENTS + zlib.crc32(name.encode()) % 8
    step = max(1, len(by_document) // wanted)
    chosen = sorted(by_document)[::step][:wanted]
    documents = {number: copy.deepcopy(by_document[number][0].doc) for number in chosen}
    instances = []
    for place, number in enumerate(chosen):
        for instance in by_document[number]:
            fresh = dataclasses.replace(instance, doc=documents[number], resps=[], filtered_resps={})
            if instance.request_type == "generate_until":
                texts[id(fresh)] = STYLES[place % len(STYLES)](_answer(task, documents[number]))
            instances.append(fresh)
    task._instances = instances
    task.build_all_requests = lambda **ignored: None
    task.doc_iterator = lambda **ignored: iter(documents.items())
    task.__dict__.pop("apply_filters", None)


def _answer(task: Any, document: Any) -> str:
    """What would be right, as text."""
    target = task.doc_to_target(document)
    if isinstance(target, list | tuple):
        target = target[0] if target else ""
    if isinstance(target, int) and not isinstance(target, bool) and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(document)
        target = choices[target] if 0 <= target < len(choices) else target
    return str(target)


def _share(request: Any) -> float:
    """A number from 0 to 1 that follows from what is asked."""
    digest = hashlib.sha256(repr((request.doc_id, request.idx, request.args)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _digests(results: Mapping[str, Any], tasks: Mapping[str, Any]) -> Judged:
    tables = {**results["results"], **results.get("groups", {})}
    samples: Mapping[str, list[dict[str, Any]]] = results["samples"]
    found = {}
    for name in tasks:
        lines = [
            [line["doc_id"], line.get("filter"), _plain(line["filtered_resps"]),
             {metric: _plain(line[metric]) for metric in line["metrics"]}]
            for line in samples[name]
        ]  # fmt: skip
        found[name] = _digest([lines, _numbers(tables.get(name, {}))])
    groups = {name: _numbers(table) for name, table in tables.items() if name not in tasks}
    return Judged(found, _digest({name: numbers for name, numbers in groups.items() if numbers}))


def _numbers(table: Mapping[str, Any]) -> dict[str, str]:
    """A task's or group's numbers, standard errors included, to nine digits: sums may be taken in another order."""
    return {
        key: f"{value:.9g}"
        for key, value in table.items()
        if "," in key and isinstance(value, int | float | numpy.number) and not math.isnan(value)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float | numpy.floating):
        return f"{float(value):.12g}"
    if isinstance(value, bool | numpy.bool_):
        return int(value)
    if isinstance(value, int | numpy.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | numpy.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, str) else repr(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
