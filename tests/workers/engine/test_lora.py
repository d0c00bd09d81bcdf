"""An adapter through the real engines, beside its base with the updates merged into the weights by hand."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.wire import EngineFamily, FailureKind, Model, Precision
from tests.adapters import build_adapter, merge
from tests.tiny import build_tiny_model
from tests.workers.engine.factories import infer_work, responses_in, write_sheet
from tests.workers.engine.test_real_engines import VLLM_GREEDY, generations, log_likelihoods
from workers import child
from workers.child import Outcome
from workers.engine.transformers import TransformersEngine
from workers.segments import Generated, Scored
from workers.stage import StageFailure

TOLERANCE = 1e-3
MERGED = Model(name="acme/merged", revision="sha256-2", precision=Precision.FLOAT32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    base = build_tiny_model(folder / "base")
    adapter = build_adapter(folder / "adapter", base, rank=6)
    merge(folder / "merged", base, adapter)
    return folder


def adapted(adapter: Path, base: Path) -> Model:
    return Model(
        name="acme/lora",
        revision="sha256-1",
        folder=str(adapter),
        precision=Precision.FLOAT32,
        weight_type="adapter",
        base_name="acme/base",
        base_revision="sha256-0",
        base_folder=str(base),
    )


def run(folder: Path, engine: EngineFamily, model_folder: Path, model: Model | None = None) -> Outcome:
    asked = [*log_likelihoods(), *(generations(VLLM_GREEDY) if engine is EngineFamily.VLLM else [])]
    work = infer_work(
        {"A": write_sheet(folder / "sheet", asked)},
        engine=engine,
        model_folder=str(model_folder),
        **({"model": model} if model else {}),
    )
    return child.start(work, folder / "out", log=folder / "log").outcome()


@pytest.mark.vllm
def test_vllm_answers_with_an_adapter_as_the_merged_weights_do(folders: Path, tmp_path: Path) -> None:
    outcome = run(
        tmp_path / "lora", EngineFamily.VLLM, folders / "adapter", adapted(folders / "adapter", folders / "base")
    )
    assert outcome.done, outcome.sentence + outcome.log_tail
    reference = run(tmp_path / "merged", EngineFamily.TRANSFORMERS, folders / "merged")
    assert reference.done, reference.sentence
    found = {response.id: response for response in responses_in(tmp_path / "lora" / "out")}
    expected = {response.id: response for response in responses_in(tmp_path / "merged" / "out")}
    assert len(expected) == len(log_likelihoods())
    for request, theirs in expected.items():
        ours = found[request]
        assert isinstance(ours, Scored)
        assert isinstance(theirs, Scored)
        assert ours.logprob == pytest.approx(theirs.logprob, abs=TOLERANCE)
        assert ours.greedy == theirs.greedy
    generated = [found[request.id] for request in generations(VLLM_GREEDY)]
    assert all(isinstance(one, Generated) and one.tokens for one in generated)
    assert outcome.done.tokens_reused > 0


def test_transformers_answers_with_an_adapter_as_the_merged_weights_do_or_says_that_it_needs_peft(
    folders: Path, tmp_path: Path
) -> None:
    model = adapted(folders / "adapter", folders / "base")
    work = infer_work({}, engine=EngineFamily.TRANSFORMERS, model_folder=str(folders / "adapter"), model=model)
    engine = TransformersEngine(work)
    if find_spec("peft") is None:
        with pytest.raises(StageFailure, match="Install peft there") as refused:
            engine.start()
        assert refused.value.kind is FailureKind.ARCHITECTURE
        return
    engine.start()
    merged = TransformersEngine(work.model_copy(update={"model": MERGED, "model_folder": str(folders / "merged")}))
    merged.start()
    for one in (engine, merged):
        one.submit(log_likelihoods()[:20])
    while engine.busy():
        for ours, theirs in zip(engine.step(), merged.step(), strict=True):
            assert isinstance(ours, Scored)
            assert isinstance(theirs, Scored)
            assert (ours.id, ours.logprob) == (theirs.id, pytest.approx(theirs.logprob, abs=TOLERANCE))


@pytest.mark.vllm
@pytest.mark.slow
def test_an_adapter_that_vllm_would_not_apply_never_stands_for_its_base(folders: Path, tmp_path: Path) -> None:
    """What peft saves for modules that vLLM knows by no name is left out without a word; here all of it is."""
    silent = tmp_path / "silent"
    shutil.copytree(folders / "adapter", silent)
    tensors = load_file(silent / "adapter_model.safetensors")
    save_file(
        {name: tensor * ("lora_A" in name) for name, tensor in tensors.items()}, silent / "adapter_model.safetensors"
    )
    outcome = run(tmp_path, EngineFamily.VLLM, silent, adapted(silent, folders / "base"))
    assert outcome.failure is FailureKind.ARCHITECTURE
    assert "answers as acme/base does without it" in outcome.sentence
