"""lm-eval by itself: one fresh `simple_evaluate`. `python -m tests.fidelity.reference WORK.json OUT.json`

It shares no code with Evalyard's harness: what it writes is what lm-eval says. Only dataset names are led to folders,
because neither the demo tasks' data nor a mirror is on the Hub, and NLTK to the data that IFEval's scorer would fetch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from workers.harness import punkt_data

ROOT = Path(__file__).resolve().parents[2]


def main(work: dict[str, Any]) -> dict[str, Any]:
    punkt_data.provide()

    import datasets

    load = datasets.load_dataset

    def load_from_folder(path: str, name: str | None = None, **options: Any) -> Any:
        folder = work["datasets"].get(path)
        if folder is None and work["mirror"] and (Path(work["mirror"]) / path).is_dir():
            folder = str(Path(work["mirror"]) / path)
        return load(folder or path, name, **options)

    datasets.load_dataset = load_from_folder

    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import sanitize_list

    arguments = {"pretrained": work["model"], "dtype": "float32", "trust_remote_code": False}
    if work["backend"] == "hf":
        arguments |= {"use_safetensors": True, "device": "cpu"}
    else:
        arguments |= {"load_format": "safetensors", "enforce_eager": True, "max_num_seqs": 64}
    results = lm_eval.simple_evaluate(
        model=work["backend"],
        model_args=arguments,
        batch_size=1 if work["backend"] == "hf" else "auto",
        tasks=work["tasks"],
        num_fewshot=work["num_fewshot"],
        limit=work["limit"],
        apply_chat_template=work["chat_template"],
        fewshot_as_multiturn=work["chat_template"],
        system_instruction=work["system_instruction"],
        gen_kwargs=work["gen_kwargs"] or None,
        task_manager=TaskManager(include_path=work["task_folders"], include_defaults=work["stock_tasks"]),
    )
    assert results is not None
    return {
        "results": results["results"],
        "groups": results.get("groups", {}),
        "samples": {
            task: [
                {**line, "resps": sanitize_list(line["resps"]), "filtered_resps": sanitize_list(line["filtered_resps"])}
                for line in lines
            ]
            for task, lines in results["samples"].items()
        },
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    record = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(record, default=str), encoding="utf-8")
    sys.stdout.flush()
    # vLLM's threads would keep the process for a while.
    os._exit(0)
