"""Against lm-eval itself: the same token ids are asked, and the same answers give the same metrics."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness.conftest import SHIPPED, Harness
from workers import segments
from workers.sheets import Generate, Loglikelihood, loglikelihood_id, read_lines, read_requests

CASES: dict[str, dict[str, Any]] = {
    "plain": {
        "tasks": ["demo_letters", "demo_stories", "demo_sums", "t_rolling", "t_empty", "t_continuation", "t_generate"],
        "limit": 5,
    },
    "chat-multiturn": {
        "tasks": ["demo_letters", "demo_sums"],
        "limit": 4,
        "chat_template": True,
        "system_instruction": "Be brief.",
        "gen_kwargs": {"max_gen_toks": 5},
    },
    "group-truncated": {
        "tasks": ["t_group", "t_rolling", "t_generate"],
        "num_fewshot": 3,
        "limit": 6,
        "context_limit": 48,
        "chat_template": True,
        "fewshot_as_multiturn": False,
    },
}
"""Each case is prepared and scored by processes of its own, so each covers much: letter choice, continuations,
generation, windows, an empty context, few-shots, shuffled documents, a group, both forms of chat, truncation."""

References = dict[str, dict[str, Any]]
"""What lm-eval sent and scored, by case: one process of it for all, because its imports take longest."""


@pytest.fixture(scope="module")
def hf_references(tmp_path_factory: pytest.TempPathFactory, tiny: Path, task_folder: Path) -> References:
    return _references(tmp_path_factory.mktemp("hf"), tiny, task_folder, rules="hf")


@pytest.fixture(scope="module")
def vllm_references(tmp_path_factory: pytest.TempPathFactory, tiny: Path, task_folder: Path) -> References:
    folder = tmp_path_factory.mktemp("vllm")
    return _references(folder, tiny, task_folder, rules="vllm", stub=str(folder / "stub"))


def _references(folder: Path, model: Path, task_folder: Path, **spec: str) -> References:
    folders = [str(SHIPPED), str(task_folder)]
    harness = Harness(folder, folder / "cache")
    return harness.references({"model": str(model), "task_folders": folders, "cases": CASES, **spec})


@pytest.mark.parametrize("case", CASES)
def test_hf_rules_ask_and_score_what_lm_eval_with_hf_does(
    case: str, harness: Harness, tiny: Path, task_folder: Path, hf_references: References
) -> None:
    reference = hf_references[case]
    _prepare(harness, tiny, task_folder, case, rules="hf")
    requests = {request.id: request for request in read_requests(harness.folder / "sheet")}

    responses: dict[str, segments.Response] = {}
    limit = CASES[case].get("context_limit", 2048)
    for sent in reference["sent"]:
        if "continuation" in sent:
            whole = (sent["context"] + sent["continuation"])[-(limit + 1) :]
            context = whole[: -len(sent["continuation"])]
            identifier = loglikelihood_id(context, sent["continuation"])
            responses[identifier] = segments.Scored(identifier, sent["logprob"], sent["greedy"])
        else:
            response = _generated(sent, requests)
            responses[response.id] = response
    assert responses.keys() == requests.keys()
    fed = {
        tuple(request.context + request.continuation)[:-1]
        for request in requests.values()
        if isinstance(request, Loglikelihood)
    }
    assert {tuple(ids) for ids in reference["inputs"]} == fed
    _compare(harness, reference, list(responses.values()), task_folder)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("case", CASES)
def test_vllm_rules_ask_and_score_what_lm_eval_with_vllm_does(
    case: str, harness: Harness, tiny: Path, task_folder: Path, vllm_references: References
) -> None:
    reference = vllm_references[case]
    _prepare(harness, tiny, task_folder, case, rules="vllm")
    requests = {request.id: request for request in read_requests(harness.folder / "sheet")}

    responses: dict[str, segments.Response] = {}
    for sent in reference["sent"]:
        if "continuation" in sent:
            identifier = loglikelihood_id(sent["context"], sent["continuation"])
            responses[identifier] = segments.Scored(identifier, sent["logprob"], sent["greedy"])
        else:
            response = _generated(sent, requests)
            responses[response.id] = response
    assert responses.keys() == requests.keys()
    _compare(harness, reference, list(responses.values()), task_folder)


def _prepare(harness: Harness, model: Path, task_folder: Path, case: str, *, rules: str) -> None:
    settings = dict(CASES[case])
    benchmark = {key: settings.pop(key) for key in ("num_fewshot", "gen_kwargs") if key in settings}
    tasks = settings.pop("tasks")
    finished = harness.prepare(
        model, tasks, "sheet", rules=rules, benchmark=benchmark, task_folders=[str(task_folder)], **settings
    )
    assert finished.done["truncated"] > 0 or case != "group-truncated"


def _generated(sent: dict[str, Any], requests: dict[str, Loglikelihood | Generate]) -> segments.Generated:
    """The response to the sheet's request that says exactly what lm-eval sent."""
    for request in requests.values():
        if isinstance(request, Generate) and request.prompt == sent["prompt"]:
            assert (request.max_tokens, request.stop) == (sent["max_tokens"], sent["stop"])
            greedy = request.sampling["temperature"] == 0.0
            sampled = sent["sampling"].get("do_sample", sent["sampling"].get("temperature", 0.0) > 0.0)
            assert greedy is not sampled
            return segments.Generated(request.id, sent["text"], sent["tokens"], "stop")
    raise AssertionError(f"lm-eval sent a prompt that is not in the sheet: {sent['prompt']}")


def _compare(
    harness: Harness, reference: dict[str, Any], responses: list[segments.Response], task_folder: Path
) -> None:
    """Every metric of every task and group, exactly; and the same documents, prompts and targets."""
    half = len(responses) // 2
    paths = [harness.seal("sheet", responses[:half]), harness.seal("sheet", responses[half:], number=1)]
    finished = harness.score("sheet", paths, task_folders=[str(task_folder)])
    assert finished.done["scores"]
    results = json.loads((harness.folder / "sheet-results" / "results.json").read_text())
    assert results["results"] | results.get("groups", {}) == reference["results"]
    assert set(reference["keys"]) <= set(results)
    for task, hashes in reference["hashes"].items():
        lines = map(json.loads, read_lines(harness.folder / "sheet-results" / f"samples_{task}.jsonl.zst"))
        assert [[line["doc_hash"], line["prompt_hash"], line["target_hash"]] for line in lines] == hashes
