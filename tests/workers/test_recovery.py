"""What follows when an infer stage dies: the decision by itself, then with real stages and an engine that fails."""

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily, FailureKind, InferDone, InferWork, SetAside
from tests.workers.engine.factories import generate, infer_work, letter_choice, responses_in, score, write_sheet
from workers import child, segments
from workers.child import Outcome
from workers.engine import scripted
from workers.recovery import MOST_RESTARTS, MOST_SET_ASIDE, Ending, Tries, answer_all, next_try
from workers.sheets import Request

# The decision


def died(kind: FailureKind = FailureKind.ENGINE, *, exit_code: int = -signal.SIGSEGV, **fields: Any) -> Outcome:
    return Outcome(exit_code, None, kind, "The engine died.", "", False, **fields)


def ended(outcome: Outcome, *held: str) -> Ending:
    return Ending(outcome, frozenset(held))


KILLED = -signal.SIGKILL


def test_out_of_memory_is_tried_with_half_as_much_three_times() -> None:
    work, tries = infer_work({}), Tries()
    said = []
    while following := next_try(work, ended(died(FailureKind.OUT_OF_MEMORY, exit_code=1), "a1"), tries):
        work, tries = following.work, following.tries
        said.append(following.sentence)
    assert work.footprint == 3
    assert (work.last, work.alone) == ((), ())
    assert said[0] == "Out of memory; trying again with half as many requests at a time."
    assert "an eighth" in said[2]
    assert work.restarts == tuple(said)


@pytest.mark.parametrize(
    ("engine", "lasting"),
    [(EngineFamily.VLLM, True), (EngineFamily.TRANSFORMERS, False)],
    ids=["lasting", "one by one"],
)
def test_what_no_smaller_footprint_can_mend_is_not_tried_again(engine: EngineFamily, lasting: bool) -> None:
    outcome = died(FailureKind.OUT_OF_MEMORY, exit_code=1, lasting=lasting)
    assert next_try(infer_work({}, engine=engine), Ending(outcome, None), Tries()) is None


@pytest.mark.parametrize("kind", [FailureKind.INVALID_OUTPUT, FailureKind.WEIGHTS, FailureKind.TOKENIZER])
def test_failures_of_the_model_are_final(kind: FailureKind) -> None:
    assert next_try(infer_work({}), ended(died(kind, exit_code=1), "a1"), Tries()) is None


def test_an_engine_that_fails_before_it_is_up_is_left_to_the_hub() -> None:
    assert next_try(infer_work({}), Ending(died(exit_code=1), None), Tries()) is None


def test_what_a_crashed_engine_held_is_asked_last_and_each_alone() -> None:
    following = next_try(infer_work({}, alone=("c3",)), ended(died(), "a1", "b2"), Tries())
    assert following is not None
    assert following.work.alone == ("c3", "a1", "b2")


def test_a_suspect_that_kills_alone_is_set_aside_and_the_others_stay_suspects() -> None:
    following = next_try(infer_work({}, alone=("a1", "b2", "c3")), ended(died(), "b2"), Tries())
    assert following is not None
    assert following.work.alone == ("a1", "c3")
    assert following.work.set_aside == (SetAside(requests=("b2",), cause="The engine died."),)


def test_an_engine_that_dies_of_ever_more_requests_alone_is_broken_itself() -> None:
    aside = tuple(SetAside(requests=(f"0{number}",), cause="It died.") for number in range(MOST_SET_ASIDE))
    assert next_try(infer_work({}, alone=("a1",), set_aside=aside), ended(died(), "a1"), Tries()) is None


def test_a_kill_makes_requests_suspect_only_when_it_meets_them_again() -> None:
    first = next_try(infer_work({}), ended(died(exit_code=KILLED), "a1", "b2"), Tries())
    assert first is not None
    assert (first.work.last, first.work.alone) == (("a1", "b2"), ())
    elsewhere = next_try(first.work, ended(died(exit_code=KILLED), "a1", "z9"), first.tries)
    assert elsewhere is not None
    assert (elsewhere.work.last, elsewhere.work.alone) == (("a1", "b2", "z9"), ())
    again = next_try(first.work, ended(died(exit_code=KILLED), "a1"), first.tries)
    assert again is not None
    assert (again.work.last, again.work.alone) == (("b2",), ("a1",))
    alone = next_try(again.work, ended(died(exit_code=KILLED), "a1"), again.tries)
    assert alone is not None
    assert alone.work.set_aside == ()
    twice_alone = next_try(alone.work, ended(died(exit_code=KILLED), "a1"), alone.tries)
    assert twice_alone is not None
    assert [one.requests for one in twice_alone.work.set_aside] == [("a1",)]


@pytest.mark.parametrize(("sealed", "most"), [(0, 2), (5, MOST_RESTARTS)])
@pytest.mark.parametrize("exit_code", [-signal.SIGSEGV, KILLED])
def test_an_engine_that_dies_again_and_again_is_given_up_soon_without_an_answer_and_late_with_some(
    sealed: int, most: int, exit_code: int
) -> None:
    work, tries = infer_work({}), Tries()
    said: list[str] = []
    while following := next_try(work, ended(died(sealed=sealed, exit_code=exit_code), f"{len(said):02x}"), tries):
        work, tries = following.work, following.tries
        said.append(f"{following.sentence} ({len(said)})")
        work = work.model_copy(update={"restarts": (*work.restarts[:-1], said[-1])})
    assert len(said) == most
    assert work.restarts == (tuple(said) if most < 10 else (*said[:5], *said[-5:]))


# With real stages


@dataclass
class Answered:
    outcome: Outcome
    starts: int
    said: list[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> InferDone:
        assert isinstance(self.outcome.done, InferDone), self.outcome
        return self.outcome.done

    @property
    def benchmarks_done(self) -> list[str]:
        return [event["benchmarks_done"] for event in self.events if event["event"] == "sealed"][-1]


def answer(work: InferWork, out: Path) -> Answered:
    answered = Answered(died(), 0, [])

    def run(work: InferWork) -> Outcome:
        answered.starts += 1
        process = child.start(work, out, log=out.with_name("log"))
        while process.running():
            answered.events += process.events(timeout=10)
        return process.outcome()

    answered.outcome = answer_all(work, out, run=run, tell=answered.said.append)
    return answered


def many(count: int, *, first: int = 0) -> list[Request]:
    """Requests that share no context."""
    return [score([number + 1, *range(50, 62)], [7]) for number in range(first, first + count)]


def killing(request: Request, how: str = "dies_at", **settings: Any) -> dict[str, Any]:
    return {how: request.id[:16], "batch": 16, **settings}


def test_a_smaller_footprint_answers_what_ran_out_of_memory_and_its_segments_say_so(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", many(60))
    answered = answer(infer_work({"A": sheet}, settings={"batch": 64, "oom_above": 40}), tmp_path / "out")
    assert (answered.starts, answered.done.computed, len(answered.done.restarts)) == (2, 60, 1)
    (path,) = (tmp_path / "out").glob("*.zst")
    header, _ = segments.read(path)
    assert (header.settings["footprint"], header.settings["batch"]) == (1, 32)


def test_out_of_memory_to_the_end_says_what_was_tried(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", many(60))
    work = infer_work({"A": sheet}, settings={"batch": 64, "oom_above": 1}, footprint=3, restarts=("Out of memory.",))
    answered = answer(work, tmp_path / "out")
    assert (answered.starts, answered.outcome.failure) == (1, FailureKind.OUT_OF_MEMORY)
    assert answered.outcome.sentence.endswith("Tried with an eighth as many requests at a time, too.")


def test_a_request_that_kills_the_engine_is_found_with_its_context_and_every_other_is_answered(tmp_path: Path) -> None:
    asked, fine = [request for document in range(25) for request in letter_choice(document)], many(30)
    sick, well = write_sheet(tmp_path / "a", asked), write_sheet(tmp_path / "b", fine)
    work = infer_work({"Sick": sick, "Well": well}, settings=killing(asked[41]), seal_seconds=0)

    answered = answer(work, tmp_path / "out")

    assert answered.starts == 3
    assert (answered.done.computed, answered.done.reused) == (126, 0)
    culprits = {request.id for request in asked[40:44]}
    assert {r.id for r in responses_in(tmp_path / "out")} == {r.id for r in [*asked, *fine]} - culprits
    assert answered.benchmarks_done == ["Well"]
    (unanswered,) = answered.done.unanswered
    assert (set(unanswered.requests), unanswered.benchmarks) == (culprits, ("Sick",))
    assert unanswered.sentence.startswith(f"Request {unanswered.requests[0]} and 3 more of the same context kill the")
    assert "SIGSEGV" in unanswered.sentence
    assert "no score for Sick" in unanswered.sentence
    assert answered.said == list(answered.done.restarts)


@pytest.mark.parametrize(
    ("how", "word"), [("hangs_at", "no step of it ended for 0.4 s"), ("freezes_at", "exit code 1 and no word")]
)
def test_a_hang_is_met_like_a_crash(tmp_path: Path, how: str, word: str) -> None:
    asked = many(40)
    sheet = write_sheet(tmp_path / "a", asked)
    answered = answer(infer_work({"A": sheet}, settings=killing(asked[5], how), hang_seconds=0.4), tmp_path / "out")
    assert (answered.starts, answered.done.computed) == (3, 39)
    assert word in answered.done.unanswered[0].sentence


def test_an_engine_that_is_killed_from_outside_goes_on_and_nothing_is_suspected(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", [*many(40), generate([1, 2, 3])])
    work = infer_work({"A": sheet}, settings={"crash_after": 24, "batch": 8}, seal_seconds=0)
    answered = answer(work, tmp_path / "out")
    assert (answered.starts, answered.done.computed, answered.done.unanswered) == (2, 41, ())
    assert len(responses_in(tmp_path / "out")) == 41


def test_tokens_and_seconds_count_the_engine_that_died_up_to_its_last_seal(tmp_path: Path) -> None:
    asked = [*many(40), generate([1, 2, 3])]
    sheet = write_sheet(tmp_path / "a", asked)
    settings = {"crash_after": 24, "batch": 8, "delay_seconds": 0.01}
    answered = answer(infer_work({"A": sheet}, settings=settings, seal_seconds=0), tmp_path / "out")
    done, last = answered.done, [event["spent"] for event in answered.events if event.get("file")][-1]
    assert answered.starts == 2
    assert done.tokens_computed == sum(request.length for request in asked)
    assert 0.41 <= done.seconds < done.total_seconds
    assert (last["requests"], last["tokens_computed"]) == (41, done.tokens_computed)


KILLS, SEAL_SECONDS, DELAY_SECONDS, BATCH = 10, 0.05, 0.001, 10


def test_ten_kills_at_random_moments_compute_little_twice_and_change_no_answer(tmp_path: Path) -> None:
    asked = [request for document in range(600) for request in letter_choice(document)]
    sheet, journal, out = write_sheet(tmp_path / "a", asked), tmp_path / "journal", tmp_path / "out"
    settings = {"delay_seconds": DELAY_SECONDS, "batch": BATCH, "journal": str(journal)}
    work = infer_work({"A": sheet}, settings=settings, seal_seconds=SEAL_SECONDS)
    draw = random.Random(11)
    kills = 0

    def run(work: InferWork) -> Outcome:
        nonlocal kills
        process = child.start(work, out, log=tmp_path / "log")
        if kills < KILLS:
            # One kill in five comes while it starts, the others while it answers.
            seals = 0 if draw.random() < 0.2 else draw.randint(1, 4)
            while seals > 0 and process.running():
                seals -= sum(event["event"] == "sealed" for event in process.events(timeout=10))
            moment = time.monotonic() + draw.random() * SEAL_SECONDS
            while (left := moment - time.monotonic()) > 0 and process.running():
                process.events(timeout=left)
            process.kill()
            kills += 1
        return process.outcome()

    outcome = answer_all(work, out, run=run, tell=lambda sentence: None)

    assert isinstance(outcome.done, InferDone), outcome.sentence
    assert (kills, len(outcome.done.restarts)) == (KILLS, KILLS)
    assert (outcome.done.computed, outcome.done.unanswered) == (len(asked), ())
    sealed = {response.id: response for response in responses_in(out)}
    assert sealed == {request.id: scripted.answer(request) for request in asked}
    twice = len(journal.read_text().split()) - len(asked)
    print(f"{KILLS} kills: {twice} of {len(asked)} requests computed twice")
    assert twice <= 0.01 * len(asked) + KILLS * (SEAL_SECONDS / DELAY_SECONDS + BATCH)
