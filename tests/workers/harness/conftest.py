"""Stage programs run as people run them, and a small set of tasks that together ask in every way lm-eval can."""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.wire import identity_digest
from tests.tiny import build_tiny_model, sample_text
from workers import segments
from workers.harness import sandbox
from workers.sheets import Loglikelihood, read_info, read_requests

ROOT = Path(__file__).parents[3]
REFERENCE = Path(__file__).with_name("reference.py")
SHIPPED = ROOT / "workers" / "harness" / "tasks"


@dataclass(frozen=True)
class Finished:
    code: int
    events: list[dict[str, Any]]
    log: str

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def done(self) -> dict[str, Any]:
        assert self.last["event"] == "completed", f"{self.last}\n{self.log[-3000:]}"
        done: dict[str, Any] = self.last["done"]
        return done


@dataclass(frozen=True)
class Harness:
    """Runs stages below a folder of its own, with caches of its own and no network."""

    folder: Path
    cache: Path
    python: str = sys.executable

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        home = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "EVALYARD_CACHE": str(self.cache)}
        return {**kept, **home, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}

    def run(self, module: str, work: dict[str, Any], out: str, **more: str) -> Finished:
        file = self.folder / f"{out}.json"
        file.write_text(json.dumps(work))
        finished = subprocess.run(
            [self.python, "-m", module, str(file), str(self.folder / out)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(**more),
            timeout=300,
        )
        events = [json.loads(line) for line in finished.stdout.splitlines()]
        return Finished(finished.returncode, events, finished.stderr)

    def prepare(self, model: Path, tasks: list[str], out: str, **work: Any) -> Finished:
        environment = work.pop("environment", {})
        benchmark = {"name": out, "tasks": tasks, **work.pop("benchmark", {})}
        work = {"model": model_record(), "model_folder": str(model), "benchmark": benchmark, "rules": "vllm", **work}
        return self.run("workers.harness.prepare", work, out, **environment)

    def score(self, sheet: str, paths: list[Path], **work: Any) -> Finished:
        environment = work.pop("environment", {})
        info = read_info(self.folder / sheet)
        work = {
            "model": model_record(),
            "benchmark": {"name": sheet, "tasks": info.plan["tasks"]},
            "sheet": str(self.folder / sheet),
            "segments": [str(path) for path in paths],
            "identity": self.identity(sheet),
            **work,
        }
        return self.run("workers.harness.score", work, f"{sheet}-results", **environment)

    def identity(self, sheet: str) -> dict[str, Any]:
        return {**read_info(self.folder / sheet).identity, "engine": "scripted", "device_type": "cpu"}

    def seal(self, sheet: str, responses: list[segments.Response], *, number: int = 0) -> Path:
        folder = self.folder / f"{sheet}-segments"
        folder.mkdir(exist_ok=True)
        header = segments.Header(identity_digest(self.identity(sheet)), "attempt", {"family": "scripted"})
        return segments.seal(folder, number, header, responses)

    def answers(self, sheet: str) -> list[segments.Response]:
        """Made-up answers to every request of a sheet, always the same."""
        found: list[segments.Response] = []
        for request in read_requests(self.folder / sheet):
            draw = random.Random(request.id)
            if isinstance(request, Loglikelihood):
                logprob = -3 * draw.random() * len(request.continuation)
                found.append(segments.Scored(request.id, logprob, draw.random() < 0.3))
            else:
                found.append(segments.Generated(request.id, f" {draw.randint(0, 10)}.", [draw.randint(3, 99)], "stop"))
        return found

    def references(self, spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What lm-eval itself sends and scores in each case, in a fresh process with empty datasets caches."""
        spec = {
            "cache": str(self.folder / "reference-cache"),
            "datasets": {"evalyard/demo": str(SHIPPED / "demo")},
            **spec,
        }
        (self.folder / "spec.json").write_text(json.dumps(spec))
        out = self.folder / "out.json"
        finished = subprocess.run(
            [sys.executable, str(REFERENCE), str(self.folder / "spec.json"), str(out)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(),
            timeout=600,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
        found: dict[str, dict[str, Any]] = json.loads(out.read_text())
        return found


def model_record() -> dict[str, Any]:
    return {"name": "tests/tiny", "revision": "sha256-tiny", "precision": "float32"}


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task index for all tests: making it takes 15 s."""
    return tmp_path_factory.mktemp("evalyard-cache")


@pytest.fixture
def harness(tmp_path: Path, shared_cache: Path) -> Harness:
    return Harness(tmp_path, shared_cache)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", chat_template=True)


@pytest.fixture(scope="session")
def code_sandbox() -> None:
    """Generated code can be run here; where not, its tests say so loudly, and fail in CI."""
    if (why := sandbox.trouble()) is not None:
        pytest.skip(f"NOT TESTED IN A SANDBOX: {why}")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Real data, where it is at hand."""
    given = os.environ.get("EVALYARD_TEST_DATASETS")
    folder = Path(given) if given else ROOT.parent / "shared" / "hub" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"needs the datasets mirror: none at {folder}; set EVALYARD_TEST_DATASETS")
    return folder


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks `t_*`: rolling, empty context, a group, few-shots, shuffled documents, sampled repeats."""
    folder = tmp_path_factory.mktemp("tasks")
    text = sample_text(lines=24, seed=3)
    rows = [
        {"text": line * (1 + number % 3), "question": line.split("\n")[0], "answer": number % 3, "number": str(number)}
        for number, line in enumerate(text)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shuffle.py").write_text(SHUFFLE)
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    choices = {
        "output_type": "multiple_choice",
        "doc_to_choice": [" yes", " no sir", " may be so"],
        "doc_to_target": "answer",
    }
    acc = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    exact = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    tasks: dict[str, dict[str, Any]] = {
        "t_rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        },
        "t_empty": {**choices, "doc_to_text": "", "target_delimiter": "", "num_fewshot": 0, "metric_list": acc},
        "t_choice_a": {**choices, "doc_to_text": "{{question}} ", "metric_list": acc},
        "t_choice_b": {**choices, "doc_to_text": "Say: {{question}}", "metric_list": acc, "process_docs": "!shuffle"},
        "t_continuation": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{question}}",
            "doc_to_target": " number {{number}}",
            "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        },
        "t_generate": {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}\nAnswer:",
            "doc_to_target": "{{number}}",
            "generation_kwargs": {"until": ["\n\n", "cat"], "do_sample": False, "max_gen_toks": 12},
            "metric_list": exact,
        },
        "t_sampled": {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}\nAnswer:",
            "doc_to_target": "{{number}}",
            "repeats": 3,
            "generation_kwargs": {"until": ["\n"], "do_sample": True, "temperature": 0.7, "max_gen_toks": 4},
            "metric_list": exact,
        },
    }
    for name, task in tasks.items():
        lines = yaml.safe_dump({"task": name, **common, "metadata": {"version": 1}, **task})
        lines = lines.replace("process_docs: '!shuffle'", "process_docs: !function shuffle.shuffled")
        (folder / f"{name}.yaml").write_text(lines)
    weighted = [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]
    group = {"group": "t_group", "task": ["t_choice_a", "t_choice_b"], "aggregate_metric_list": weighted}
    (folder / "t_group.yaml").write_text(yaml.safe_dump(group))
    (folder / "t_code.yaml").write_text(
        yaml.safe_dump({"task": "t_code", **common, "unsafe_code": True, **tasks["t_generate"]})
    )
    metric = [{"metric": "made_up_metric", "aggregation": "mean", "higher_is_better": True}]
    (folder / "t_metric.yaml").write_text(
        yaml.safe_dump({"task": "t_metric", **common, **tasks["t_generate"], "metric_list": metric})
    )
    return folder


SHUFFLE = '''
import random


def shuffled(dataset):
    """Like GPQA's: the order depends on the global generator at the moment of the call."""

    def change(row):
        words = row["question"].split()
        random.shuffle(words)
        return {**row, "question": " ".join(words)}

    return dataset.map(change)
'''
