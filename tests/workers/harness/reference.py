"""lm-eval itself, unchanged, in a process of its own: what a sheet and a score are compared with.

`python reference.py SPEC.json OUT.json`. Writes for each case every request that lm-eval's back end sent to its model,
with the answer, and lm-eval's results. Nothing of a case is left for the next: each has its own model object, tasks and
datasets cache, and `simple_evaluate` seeds. Uses nothing of Evalyard.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SPEC = json.loads(Path(sys.argv[1]).read_text())
CASE: dict[str, Any] = {}
"""The case at work; its datasets cache is in a folder of its name."""
if "stub" in SPEC:  # lm-eval asks for the version of a distribution called vllm
    info = Path(SPEC["stub"]) / "vllm-0.32.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    sys.path.insert(0, SPEC["stub"])

import datasets  # noqa: E402

original = datasets.load_dataset


def load(path: str, name: str | None = None, **kwargs: Any) -> Any:
    return original(SPEC["datasets"].get(path, path), name, cache_dir=str(Path(SPEC["cache"], CASE["name"])), **kwargs)


datasets.load_dataset = load

import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

sent: list[dict[str, Any]] = []
inputs: list[list[int]] = []


def hf_model() -> Any:
    from lm_eval.models.huggingface import HFLM

    class Recorded(HFLM):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
            answers = super()._loglikelihood_tokens(requests, **kwargs)
            for (_, context, continuation), (logprob, greedy) in zip(requests, answers, strict=True):
                sent.append({"context": context, "continuation": continuation, "logprob": logprob, "greedy": greedy})
            return answers

        def _model_call(self, inps: Any, **kwargs: Any) -> Any:
            inputs.append(inps[0].tolist())
            return super()._model_call(inps, **kwargs)

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
            kept = {key: value for key, value in kwargs.items() if key != "attention_mask"}
            out = super()._model_generate(context, max_length, stop, **kwargs)
            tokens = out[0][context.shape[1] :].tolist()
            sent.append(
                {
                    "prompt": context[0].tolist(),
                    "max_tokens": max_length - context.shape[1],
                    "stop": stop,
                    "sampling": kept,
                    "tokens": tokens,
                    "text": self.tok_decode(tokens),
                }
            )
            return out

    limit = CASE.get("context_limit")
    return Recorded(pretrained=SPEC["model"], device="cpu", dtype="float32", batch_size=1, max_length=limit)


def vllm_model() -> Any:
    """lm-eval's VLLM class with everything but the engine; answers follow from the ids alone."""
    from lm_eval.models.utils import configure_pad_token
    from lm_eval.models.vllm_causallms import VLLM, get_tokenizer, resolve_hf_chat_template
    from transformers import AutoConfig
    from vllm.config import ModelConfig

    model_config = ModelConfig(SPEC["model"], dtype="float32", max_model_len=CASE.get("context_limit"))

    class Recorded(VLLM):  # type: ignore[misc]
        def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
            return [
                self._generated(ids, parameters) if generate else self._scored(ids)
                for ids, parameters in zip(requests, sampling_params or [None] * len(requests), strict=True)
            ]

        def _scored(self, ids: list[int]) -> Any:
            logprobs = [None, *({ids[place]: pseudo(ids[: place + 1])} for place in range(1, len(ids)))]
            return SimpleNamespace(prompt_logprobs=logprobs)

        def _generated(self, ids: list[int], parameters: Any) -> Any:
            text = f" {hashlib.sha256(str(ids).encode()).digest()[0] % 11} and more"
            wanted = ("temperature", "top_p", "skip_special_tokens", "spaces_between_special_tokens")
            sent.append(
                {
                    "prompt": ids,
                    "max_tokens": parameters.max_tokens,
                    "stop": parameters.stop,
                    "sampling": {key: getattr(parameters, key) for key in wanted},
                    "tokens": [1, 2],
                    "text": text,
                }
            )
            return SimpleNamespace(outputs=[SimpleNamespace(text=text)])

        @staticmethod
        def _parse_logprobs(tokens: list[int], outputs: Any, ctxlen: int) -> Any:
            answer = VLLM._parse_logprobs(tokens, outputs, ctxlen)
            sent.append(
                {"context": tokens[:ctxlen], "continuation": tokens[ctxlen:], "logprob": answer[0], "greedy": answer[1]}
            )
            return answer

    lm = object.__new__(Recorded)
    super(VLLM, lm).__init__()
    lm.think_end_token = None
    lm.truncation_side = "left"
    lm.data_parallel_size = 1
    lm.batch_size = "auto"
    lm._max_length = CASE.get("context_limit")
    lm.model = SimpleNamespace(llm_engine=SimpleNamespace(model_config=model_config))
    lm.add_bos_token = None
    lm._config = AutoConfig.from_pretrained(SPEC["model"])
    lm.tokenizer = configure_pad_token(get_tokenizer(SPEC["model"], tokenizer_mode="auto"), model_config=lm._config)
    lm.chat_template_args = {}
    lm.enable_thinking = None
    lm.hf_chat_template = resolve_hf_chat_template(
        tokenizer=lm.tokenizer, chat_template=None, tools=None, model_config=model_config
    )
    lm.custom_prefix_token_id = None
    lm._max_gen_toks = 256
    lm.lora_request = None
    return lm


def pseudo(ids: list[int]) -> float:
    return -int.from_bytes(hashlib.sha256(str(ids).encode()).digest()[:4], "big") / 2**30


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | bool | type(None)) else float(value)


def evaluated() -> dict[str, Any]:
    results = lm_eval.simple_evaluate(
        model=hf_model() if SPEC["rules"] == "hf" else vllm_model(),
        tasks=CASE["tasks"],
        task_manager=TaskManager(include_path=SPEC["task_folders"], include_defaults=False),
        num_fewshot=CASE.get("num_fewshot"),
        limit=CASE.get("limit"),
        apply_chat_template=CASE.get("chat_template", False),
        fewshot_as_multiturn=CASE.get("fewshot_as_multiturn", True),
        system_instruction=CASE.get("system_instruction"),
        gen_kwargs=CASE.get("gen_kwargs"),
    )
    hashes = {
        task: [[line["doc_hash"], line["prompt_hash"], line["target_hash"]] for line in lines]
        for task, lines in results["samples"].items()
    }
    scores = {
        task: {key: plain(value) for key, value in table.items()}
        for task, table in (results["results"] | results.get("groups", {})).items()
    }
    keys = sorted(set(results) - {"samples"})
    return {"sent": list(sent), "inputs": list(inputs), "results": scores, "hashes": hashes, "keys": keys}


def main() -> None:
    found = {}
    for name, case in SPEC["cases"].items():
        CASE.clear()
        CASE.update(case, name=name)
        sent.clear()
        inputs.clear()
        found[name] = evaluated()
    Path(sys.argv[2]).write_text(json.dumps(found))


main()
