"""vLLM that stays up: the second work starts no engine, and its answers are those of an engine of its own."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.wire import EngineFamily, InferDone
from tests.tiny import build_tiny_model
from tests.workers.engine.factories import generate, infer_work, responses_in, write_sheet
from tests.workers.engine.test_real_engines import TOLERANCE, VLLM_GREEDY, log_likelihoods, prompts
from workers import child
from workers.segments import Response, Scored
from workers.sheets import Request

pytestmark = pytest.mark.vllm


@dataclass(frozen=True)
class Work:
    done: InferDone
    by_id: dict[str, Response]
    phases: list[str]
    seconds: float


def finish(running: child.Child, out: Path) -> Work:
    began = time.monotonic()
    events = []
    while running.running():
        events += running.events(timeout=10)
    outcome = running.outcome()
    assert isinstance(outcome.done, InferDone), outcome.sentence + outcome.log_tail
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    answers = {response.id: response for response in responses_in(out)}
    return Work(outcome.done, answers, phases, time.monotonic() - began)


def works() -> tuple[list[Request], list[Request]]:
    """Two sheets with contexts in common: what the first left in the prefix cache is used by the second."""
    asked = log_likelihoods()
    written = [generate(prompt, stop=["\n", "</s>"], max_tokens=12, **VLLM_GREEDY) for prompt in prompts()]
    return [*asked[::2], *written[::2]], [*asked[1::2], *written[1::2]]


def test_a_warm_engine_starts_at_once_and_answers_as_a_cold_one(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    first_asked, second_asked = works()
    longest = max(request.length for request in [*first_asked, *second_asked])
    first_asked.append(generate(list(range(3, 3 + longest)), max_tokens=1, **VLLM_GREEDY))
    common = {"engine": EngineFamily.VLLM, "model_folder": str(model)}
    first_work = infer_work({"A": write_sheet(tmp_path / "a", first_asked)}, **common)
    second_work = infer_work({"B": write_sheet(tmp_path / "b", second_asked)}, **common, attempt="attempt-2")

    cold = finish(child.start(second_work, tmp_path / "cold", log=tmp_path / "cold.log"), tmp_path / "cold")
    running = child.start(first_work, tmp_path / "first", log=tmp_path / "log", stay=True)
    try:
        first = finish(running, tmp_path / "first")
        assert running.give(second_work, tmp_path / "warm")
        warm = finish(running, tmp_path / "warm")
        assert running.idle()
    finally:
        running.kill()

    print(f"\nthe same work: cold {cold.seconds:.1f} s, warm {warm.seconds:.1f} s")
    assert (first.phases, warm.phases) == (["loading weights", "answering"], ["answering"])
    assert warm.seconds < cold.seconds / 2
    assert warm.by_id.keys() == {request.id for request in second_asked}
    for request in second_asked:
        ours, theirs = warm.by_id[request.id], cold.by_id[request.id]
        if isinstance(ours, Scored) and isinstance(theirs, Scored):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=TOLERANCE)
            assert ours.greedy == theirs.greedy
        else:
            assert ours == theirs
    assert warm.done.computed == cold.done.computed == len(second_asked)
    # Not fewer tokens computed: where the cache reaches into rows that are asked for, they are asked for again.
    assert warm.done.tokens_reused > 0
