"""The infer stage as its supervisor sees it: a real child process with the scripted engine."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import FailureKind, InferDone, InferWork
from tests.workers.engine.factories import generate, infer_work, letter_choice, responses_in, score, write_sheet
from workers import child, segments
from workers.child_environment import child_environment
from workers.engine.ledger import Ledger
from workers.engine.scripted import answer
from workers.engine.sealer import Sealer
from workers.sheets import Request
from workers.stage import StageFailure

Events = list[dict[str, Any]]

SLOW = {"delay_seconds": 0.002, "batch": 10}


def finish(work: InferWork, out: Path) -> tuple[child.Outcome, Events]:
    process = child.start(work, out, log=out.with_name(out.name + ".log"))
    events = []
    while process.running():
        events += process.events(timeout=10)
    return process.outcome(), events


def sealed(events: Events) -> Events:
    return [event for event in events if event["event"] == "sealed"]


def questions(count: int, *, first: int = 0) -> list[Request]:
    return [request for document in range(first, first + count) for request in letter_choice(document)]


def test_every_request_is_answered_once_and_benchmarks_are_reported_when_sealed(tmp_path: Path) -> None:
    shared = questions(3)
    first = write_sheet(tmp_path / "a", [*shared, generate([1, 2, 3], stop=["\n"])])
    second = write_sheet(tmp_path / "b", questions(2, first=10) + shared)

    outcome, events = finish(infer_work({"ARC": first, "GSM8K": second}), tmp_path / "out")

    assert isinstance(outcome.done, InferDone)
    assert (outcome.done.computed, outcome.done.reused) == (21, 0)
    wanted = {
        request.id: request for request in [*questions(5, first=10)[:8], *shared, generate([1, 2, 3], stop=["\n"])]
    }
    assert {r.id: r for r in responses_in(tmp_path / "out")} == {name: answer(r) for name, r in wanted.items()}
    assert len(responses_in(tmp_path / "out")) == 21
    assert sealed(events)[-1]["benchmarks_done"] == ["ARC", "GSM8K"]
    assert sum(event["count"] for event in sealed(events)) == 21
    progress = [event for event in events if event["event"] == "progress"]
    assert (progress[0]["done"], progress[-1]["done"], progress[-1]["total"]) == (0, 21, 21)


def test_nothing_missing_starts_no_engine_and_says_at_once_what_is_done(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(4))
    finish(infer_work({"ARC": sheet}), tmp_path / "first")
    known = tuple(str(path) for path in (tmp_path / "first").glob("*.zst"))

    outcome, events = finish(infer_work({"ARC": sheet}, known=known), tmp_path / "second")

    assert outcome.done is not None
    assert (outcome.done.computed, outcome.done.reused) == (0, 16)
    assert [event["event"] for event in events] == ["progress", "sealed", "completed"]
    assert (sealed(events)[0]["benchmarks_done"], sealed(events)[0]["count"]) == (["ARC"], 0)


def test_a_benchmark_complete_from_known_segments_is_reported_before_the_engine_starts(tmp_path: Path) -> None:
    old, new = write_sheet(tmp_path / "a", questions(2)), write_sheet(tmp_path / "b", questions(2, first=5))
    finish(infer_work({"ARC": old}), tmp_path / "first")
    known = tuple(str(path) for path in (tmp_path / "first").glob("*.zst"))

    _, events = finish(infer_work({"ARC": old, "MMLU": new}, known=known), tmp_path / "second")

    names = [event.get("phase", event["event"]) for event in events]
    assert names.index("sealed") < names.index("loading weights")
    assert [event["benchmarks_done"] for event in sealed(events)] == [["ARC"], ["ARC", "MMLU"]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_a_random_moment_only_the_missing_are_computed_again(tmp_path: Path, seed: int) -> None:
    asked = questions(100)
    sheet = write_sheet(tmp_path / "a", asked)
    process = child.start(
        infer_work({"ARC": sheet}, settings=SLOW, seal_seconds=0.05), tmp_path / "killed", log=tmp_path / "log"
    )
    segments_until_kill, events = random.Random(seed).randint(1, 5), []
    while len(sealed(events)) < segments_until_kill:
        events += process.events(timeout=10)
    process.kill()
    known = sorted((tmp_path / "killed").glob("*.jsonl.zst"))
    survived = {response.id for response in responses_in(tmp_path / "killed")}
    assert 0 < len(survived) < len(asked)

    outcome, _ = finish(infer_work({"ARC": sheet}, known=tuple(map(str, known))), tmp_path / "resumed")

    assert outcome.done is not None
    assert (outcome.done.computed, outcome.done.reused) == (len(asked) - len(survived), len(survived))
    again = {response.id for response in responses_in(tmp_path / "resumed")}
    assert again == {request.id for request in asked} - survived


def test_the_same_output_folder_is_continued_where_it_was(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(5))
    crashed, _ = finish(
        infer_work({"ARC": sheet}, settings={"batch": 4, "crash_after": 8}, seal_seconds=0), tmp_path / "out"
    )
    assert crashed.failure is FailureKind.ENGINE
    assert len(responses_in(tmp_path / "out")) == 8

    outcome, _ = finish(infer_work({"ARC": sheet}), tmp_path / "out")

    assert outcome.done is not None
    assert outcome.done.computed == 12
    numbers = [int(path.name[:6]) for path in sorted((tmp_path / "out").glob("*.jsonl.zst"))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len({response.id for response in responses_in(tmp_path / "out")}) == 20


def test_asked_to_stop_it_seals_what_is_finished_and_says_so(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(2000))
    work = infer_work({"ARC": sheet}, settings=SLOW, seal_seconds=0.05)
    process = child.start(work, tmp_path / "out", log=tmp_path / "log")
    events: Events = []
    while not sealed(events):
        events += process.events(timeout=10)

    process.stop(grace_seconds=10)

    outcome = process.outcome()
    assert (outcome.exit_code, outcome.stopped, outcome.done) == (3, True, None)
    assert responses_in(tmp_path / "out")


def test_not_a_number_is_a_classified_failure_and_never_sealed(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(5))

    outcome, _ = finish(infer_work({"ARC": sheet}, settings={"nan_at": 6, "batch": 4}), tmp_path / "out")

    assert outcome.failure is FailureKind.INVALID_OUTPUT
    assert questions(5)[6].id in outcome.sentence
    assert [r.id for r in responses_in(tmp_path / "out")] == [request.id for request in questions(5)[:6]]


def test_damaged_and_foreign_segments_are_set_aside_with_a_warning(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(3))
    finish(infer_work({"ARC": sheet}), tmp_path / "good")
    (good,) = (tmp_path / "good").glob("*.jsonl.zst")
    damaged = tmp_path / good.name
    damaged.write_bytes(good.read_bytes()[:-3] + b"xyz")
    finish(infer_work({"ARC": sheet}, identity={"weights": "another"}), tmp_path / "foreign")
    (foreign,) = (tmp_path / "foreign").glob("*.jsonl.zst")
    known = (str(damaged), str(foreign), str(tmp_path / "000009-gone.jsonl.zst"))

    outcome, _ = finish(infer_work({"ARC": sheet}, known=known), tmp_path / "out")

    assert outcome.done is not None
    assert (outcome.done.computed, outcome.done.reused) == (12, 0)
    log = (tmp_path / "out.log").read_text(encoding="utf-8")
    assert log.count("is set aside") == 3
    assert "bytes do not match" in log
    assert "another model identity" in log


def test_a_sheet_that_is_cut_off_is_named_and_nothing_of_it_is_answered(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(4))
    requests = Path(sheet) / "requests.jsonl.zst"
    requests.write_bytes(requests.read_bytes()[:-9])
    outcome, _ = finish(infer_work({"ARC": sheet}), tmp_path / "out")
    assert (outcome.failure, outcome.sentence) == (
        FailureKind.SHEET,
        "requests.jsonl.zst is cut off. Prepare the benchmark again.",
    )
    assert responses_in(tmp_path / "out") == []


def test_slices_together_answer_the_whole_sheet_once(tmp_path: Path) -> None:
    asked = [*questions(40), *(score([1], [token]) for token in range(2, 12))]
    sheet = write_sheet(tmp_path / "a", asked)
    outs = [tmp_path / f"slice-{index}" for index in range(3)]
    for index, out in enumerate(outs):
        outcome, _ = finish(infer_work({"ARC": sheet}, slice_index=index, slice_count=3), out)
        assert outcome.done is not None

    ids = [response.id for out in outs for response in responses_in(out)]
    assert sorted(ids) == sorted(request.id for request in asked)


def test_a_slice_counts_its_own_part_and_says_when_that_of_a_benchmark_is_done(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(20))
    totals = []
    for index in range(2):
        _, events = finish(infer_work({"ARC": sheet}, slice_index=index, slice_count=2), tmp_path / f"s{index}")
        assert sealed(events)[-1]["benchmarks_done"] == ["ARC"]
        last = [event for event in events if event["event"] == "progress"][-1]
        assert last["done"] == last["total"] == len(responses_in(tmp_path / f"s{index}"))
        totals.append(last["total"])
    assert sum(totals) == 80


def test_a_token_beyond_the_embeddings_is_told_before_the_engine_sees_it(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"vocab_size": 200}')
    sheet = write_sheet(tmp_path / "a", [score([1, 2], [3]), score([1, 200], [3])])

    outcome, _ = finish(infer_work({"ARC": sheet}, model_folder=str(model)), tmp_path / "out")

    assert outcome.failure is FailureKind.TOKENIZER
    assert "token 200" in outcome.sentence


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(1))
    outcome, _ = finish(infer_work({"ARC": sheet}, settings={"bach": 3}), tmp_path / "out")
    assert "no setting 'bach'" in outcome.sentence


def test_the_stage_imports_no_engine_before_it_needs_one(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(1))
    blocked = tmp_path / "blocked"
    for package in ("torch", "vllm", "transformers", "lm_eval", "celery", "sqlmodel"):
        (blocked / package).mkdir(parents=True)
        (blocked / package / "__init__.py").write_text("raise ImportError('the scripted engine needs none of it')")
    process = child.start(
        infer_work({"ARC": sheet}), tmp_path / "out", log=tmp_path / "log", environment={"PYTHONPATH": _path(blocked)}
    )
    assert process.outcome().done is not None


def _path(first: Path) -> str:
    return f"{first}:{child_environment(infer_work({}).stage)['PYTHONPATH']}"


def test_each_segment_says_who_answered_and_how(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", questions(1))
    finish(infer_work({"ARC": sheet}, settings={"batch": 2}), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.jsonl.zst")
    header, _ = segments.read(path)
    assert (header.attempt, header.engine["family"], header.settings["batch"]) == ("attempt-1", "scripted", 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_finite_number_is_the_model_s_failure(tmp_path: Path, value: float) -> None:
    ledger = Ledger(["A"])
    sealer = Sealer(tmp_path, segments.Header("0", "1", {}), ledger, seconds=5, now=lambda: 0.0)
    with pytest.raises(StageFailure) as caught:
        sealer.add([segments.Scored("0a", value, False)])
    assert caught.value.kind is FailureKind.INVALID_OUTPUT


def test_a_model_whose_text_could_never_end_is_refused_before_the_engine_starts(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"vocab_size": 200, "eos_token_id": 200}')
    sheet = write_sheet(tmp_path / "a", [generate([1, 2])])

    outcome, events = finish(infer_work({"A": sheet}, model_folder=str(model)), tmp_path / "out")

    assert outcome.failure is FailureKind.CONFIG
    assert [event["event"] for event in events] == ["progress", "failed"]
