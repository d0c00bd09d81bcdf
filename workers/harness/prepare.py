"""The prepare stage: lm-eval builds a benchmark's requests with the model's tokenizer, and a sheet keeps them.

`python -m workers.harness.prepare WORK.json OUT` needs neither a GPU nor torch. It never answers a request, and never
runs code that came with a model or a dataset.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.wire import FailureKind, PrepareDone, PrepareWork
from workers import stage
from workers.harness import first_prompt, freeze, session
from workers.sheets import Document, Instance, SheetInfo, folder_digest, write_info, write_lines
from workers.stage import StageFailure

if TYPE_CHECKING:
    from workers.harness.model_files import ModelFiles
    from workers.harness.recorder import RecordingLM, RequestWriter


class _RequestsBuilt(Exception):
    """Ends lm-eval's `evaluate` where answers would be turned into scores."""


def main(work: PrepareWork, out: Path) -> PrepareDone:
    with session.open_session(out, work.task_folders) as opened:
        info = build(work, out, opened)
    write_info(out, info)
    return PrepareDone(
        sheet=str(out),
        digest=folder_digest(out),
        requests=info.requests,
        documents=info.documents,
        truncated=info.truncated,
        longest=info.longest,
        identity=info.identity,
        provenance=info.provenance,
    )


def build(work: PrepareWork, out: Path, opened: session.Session) -> SheetInfo:
    """Write requests, instances and documents of a benchmark into `out`; returns what sheet.json will say."""
    # Behind the guards: these import transformers and lm-eval.
    from workers.harness import model_files, recorder, rules

    stage.emit("phase", phase="loading tokenizer")
    files = model_files.load(work.model, work.model_folder, work.rules, context_limit=work.context_limit)
    if work.chat_template and files.chat_template is None:
        raise StageFailure(
            FailureKind.CHAT_TEMPLATE,
            f"Model {work.model.name} has no chat template. Submit it without chat template, or add one to its "
            f"tokenizer.",
        )
    stage.emit("phase", phase="loading tasks")
    manager = opened.check(work.benchmark.tasks, {"pretrained": str(files.folder)})
    with recorder.RequestWriter(out / "requests.jsonl.zst") as writer:
        lm = recorder.RecordingLM(
            rules.make(files),
            writer,
            progress=lambda done, total: stage.emit("progress", done=done, total=total),
        )
        tasks, state = _record(work, opened, manager, lm)
        _refuse_missing_template(work, lm)
    return _write(work, out, files=files, lm=lm, writer=writer, tasks=tasks, state=state, used=opened.datasets.used)


def _refuse_missing_template(work: PrepareWork, lm: "RecordingLM") -> None:
    """Raise where a template was asked for and no prompt of the benchmark was made with it."""
    if work.chat_template and lm.first_prompts and not lm.rendered:
        raise StageFailure(
            FailureKind.CHAT_TEMPLATE,
            f"Benchmark {work.benchmark.name} leaves the chat template out that was asked for: its tasks make their "
            "prompts without it. Run it without chat template.",
        )


def _record(
    work: PrepareWork, opened: session.Session, manager: Any, lm: "RecordingLM"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run lm-eval until every request was asked; returns its task objects and where the generators stand then."""
    tasks: dict[str, Any] = {}
    state: dict[str, Any] = {}

    def stop() -> None:
        state.update(session.random_state())
        raise _RequestsBuilt

    def until_requests(evaluate: session.Evaluate, given: dict[str, Any]) -> dict[str, Any]:
        tasks.update(given["task_dict"]["tasks"])
        refused = [
            name
            for name, task in tasks.items()
            if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False)
        ]
        if refused:
            raise StageFailure(
                FailureKind.TASK_REFUSED,
                f"Task {refused[0]} runs generated code or is not text alone, which this harness does not do. Leave "
                f"it out.",
            )
        for task in tasks.values():
            task.apply_filters = stop
        stage.emit("phase", phase="building requests")
        return evaluate(**given)

    try:
        opened.simple_evaluate(
            until_requests,
            model=lm,
            tasks=list(work.benchmark.tasks),
            num_fewshot=work.benchmark.num_fewshot,
            limit=work.limit,
            system_instruction=work.system_instruction,
            apply_chat_template=work.chat_template,
            fewshot_as_multiturn=work.fewshot_as_multiturn,
            gen_kwargs=dict(work.benchmark.gen_kwargs) or None,
            task_manager=manager,
            random_seed=work.seeds.random,
            numpy_random_seed=work.seeds.numpy,
            torch_random_seed=work.seeds.torch,
            fewshot_random_seed=work.seeds.fewshot,
        )
    except _RequestsBuilt:
        return tasks, state
    raise StageFailure(FailureKind.HARNESS, "lm-eval ended before it had asked for anything. Look at the log.")


def _write(
    work: PrepareWork,
    out: Path,
    *,
    files: "ModelFiles",
    lm: "RecordingLM",
    writer: "RequestWriter",
    tasks: dict[str, Any],
    state: dict[str, Any],
    used: dict[tuple[str, str | None], dict[str, Any]],
) -> SheetInfo:
    from workers.harness import model_files

    documents = {name: _documents(task) for name, task in tasks.items()}
    instances = write_lines(out / "instances.jsonl.zst", _instances(tasks, lm))
    count = write_lines(
        out / "documents.jsonl.zst",
        (
            Document(name, number, _frozen(name, content))
            for name, found in documents.items()
            for number, content in found.items()
        ),
    )
    tokenizer = files.tokenizer
    plan = {
        "lm_eval": importlib.metadata.version("lm_eval"),
        "tasks": list(work.benchmark.tasks),
        "num_fewshot": work.benchmark.num_fewshot,
        "gen_kwargs": dict(work.benchmark.gen_kwargs),
        "limit": work.limit,
        "seeds": work.seeds.model_dump(),
        "chat_template": work.chat_template,
        "chat_template_text": files.chat_template if work.chat_template else None,
        "fewshot_as_multiturn": work.fewshot_as_multiturn,
        "system_instruction": work.system_instruction,
        "rules": work.rules,
        "context_limit": files.context_limit,
        "tokenizer": {
            kind: [getattr(tokenizer, f"{kind}_token", None), getattr(tokenizer, f"{kind}_token_id", None)]
            for kind in ("pad", "eos", "bos")
        },
        "task_facts": {
            name: {"documents": len(task.eval_docs), "features": getattr(task, "features", None)}
            for name, task in tasks.items()
        },
        "random_state": state,
    }
    return SheetInfo(
        benchmark=work.benchmark.name,
        rules=work.rules,
        requests=writer.count,
        instances=instances,
        documents=count,
        truncated=writer.truncated,
        longest=writer.longest,
        identity=model_files.identity(work.model, files),
        plan=plan,
        provenance=_provenance(
            work, files, lm=lm, tasks=tasks, documents=documents, used=used, truncated=writer.truncated
        ),
    )


def _documents(task: Any) -> dict[int, Any]:
    """The documents as the requests were built from them; reading the dataset again might shuffle them anew."""
    found: dict[int, Any] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, instance.doc)
    return found


def _instances(tasks: dict[str, Any], lm: "RecordingLM") -> Iterator[Instance]:
    for name, task in tasks.items():
        for instance in task.instances:
            yield Instance(
                task=name,
                document=instance.doc_id,
                index=instance.idx,
                request_type=instance.request_type,
                arguments=[_frozen(name, argument) for argument in instance.args],
                requests=lm.answers[id(instance)],
            )


def _frozen(task: str, value: Any) -> Any:
    try:
        return freeze.freeze(value)
    except freeze.NotFreezable as error:
        raise StageFailure(
            FailureKind.TASK_REFUSED, f"Task {task} cannot be kept in a sheet: {error} Leave it out."
        ) from error


def _provenance(
    work: PrepareWork,
    files: "ModelFiles",
    *,
    lm: "RecordingLM",
    tasks: dict[str, Any],
    documents: dict[str, dict[int, Any]],
    used: dict[tuple[str, str | None], dict[str, Any]],
    truncated: int,
) -> dict[str, Any]:
    template = files.chat_template if work.chat_template else None
    bos = files.tokenizer.bos_token_id
    return {
        "harness": "lm_eval " + importlib.metadata.version("lm_eval"),
        "packages": {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers", "datasets")},
        "rules": work.rules,
        "model": {"name": work.model.name, "revision": work.model.revision, "precision": work.model.precision.value},
        "tokenizer": files.tokenizer_digest,
        "context_limit": files.context_limit,
        "chat_template_sha": hashlib.sha256(template.encode()).hexdigest() if template else None,
        # A template that prints today's date asks something else tomorrow.
        "chat_template_has_date": bool(template and "strftime_now" in template),
        "fewshot_as_multiturn": work.fewshot_as_multiturn,
        "system_instruction": work.system_instruction,
        "seeds": work.seeds.model_dump(),
        "limit": work.limit,
        "gen_kwargs": dict(work.benchmark.gen_kwargs),
        "first_prompts": {kind: prompt.describe(bos) for kind, prompt in lm.first_prompts.items()},
        "warnings": first_prompt.find_oddities(
            lm.first_prompts.values(),
            bos=bos,
            bos_is_added=first_prompt.adds_bos(files.tokenizer),
            rendered=lm.rendered if work.chat_template else None,
        ),
        "truncated": truncated,
        "tasks": {name: _task_provenance(task, documents[name], used) for name, task in tasks.items()},
    }


def _task_provenance(
    task: Any, documents: dict[int, Any], used: dict[tuple[str, str | None], dict[str, Any]]
) -> dict[str, Any]:
    prompts, targets = hashlib.sha256(), hashlib.sha256()
    for instance in task.instances:
        for argument in instance.args:
            prompts.update(repr(argument).encode() + b"\0")
    for content in documents.values():
        targets.update(str(task.doc_to_target(content)).encode() + b"\0")
    path, name = task.DATASET_PATH, task.DATASET_NAME
    return {
        "version": task.VERSION,
        "num_fewshot": task.config.num_fewshot,
        "output_type": task.OUTPUT_TYPE,
        "documents": len(documents),
        "prompts": prompts.hexdigest(),
        "targets": targets.hexdigest(),
        "dataset": {"path": path, "name": name, **used.get((path, name), {})},
    }


if __name__ == "__main__":
    stage.run(PrepareWork, main)
