"""An lm-eval model that writes down what it is asked, as the requests of a sheet, and answers nothing of use."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zstandard
from lm_eval.api.model import LM

from workers.harness.first_prompt import FirstPrompt
from workers.harness.rules import Encoded, Rules
from workers.sheets import Generate, Loglikelihood, Request, generate_id

CHUNK = 512
"""Instances encoded together: enough to keep a tokenizer's threads busy, little enough to hold in memory."""


class RequestWriter:
    """Writes distinct requests to requests.jsonl.zst as they come; the file appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.count = self.truncated = self.longest = self.generations = 0
        self.lengths: dict[str, int] = {}
        """Tokens of each request, by its hash."""
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._raw = self._temporary.open("wb")
        self._out = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(self._raw, closefd=False)
        self._encoder = msgspec.json.Encoder()

    def add(self, request: Request, *, truncated: bool) -> str:
        if request.id not in self.lengths:
            self.lengths[request.id] = request.length
            self._out.write(self._encoder.encode(request) + b"\n")
            self.count += 1
            self.truncated += truncated
            self.generations += isinstance(request, Generate)
            self.longest = max(self.longest, request.length)
        return request.id

    def __enter__(self) -> "RequestWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()  # type: ignore[no-untyped-call]  # zstandard leaves it untyped
        self._raw.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


class RecordingLM(LM):  # type: ignore[misc]  # lm-eval has no types for mypy
    """What lm-eval sees as the model while a sheet is made."""

    def __init__(self, rules: Rules, writer: RequestWriter, *, progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self.rules = rules
        self.tokenizer = rules.tokenizer
        self.answers: dict[int, list[list[str]]] = {}
        """By `id()` of an instance: for each repeat the hashes of the requests that answer it."""
        self.first_prompts: dict[str, FirstPrompt] = {}
        """By kind of request."""
        self.rendered: set[int] = set()
        """Hashes of the texts that the chat template made."""
        self._writer = writer
        self._progress = progress

    @property
    def tokenizer_name(self) -> str:
        return self.rules.tokenizer_name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.rules.files.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text = self.rules.apply_chat_template(chat_history, add_generation_prompt)
        self.rendered.add(hash(text))
        return text

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        for chunk in self._chunks(requests):
            self.rules.warm(text for instance in chunk for text in _texts(*instance.args))
            pairs = self.rules.loglikelihood(chunk, disable_tqdm=True)
            for instance, (_, context, continuation) in zip(chunk, pairs, strict=True):
                encoded = self.rules.split(context, continuation)
                if encoded is not None:
                    self._keep_first("loglikelihood", instance.args[0], encoded)
                self._note(instance, [encoded] if encoded else [])
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        for chunk in self._chunks(requests):
            self.rules.warm(instance.args[0] for instance in chunk)
            for instance in chunk:
                windows = self.rules.windows(instance.args[0])
                encoded = [self.rules.split(context, continuation) for context, continuation in windows]
                self._note(instance, [window for window in encoded if window is not None])
        return [0.0] * len(requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        for chunk in self._chunks(requests):
            prompts = self.rules.encode_prompts([instance.args[0] for instance in chunk])
            for instance, prompt in zip(chunk, prompts, strict=True):
                encoded = self.rules.generation(prompt, instance.args[1], task=instance.task_name)
                self._keep_first("generate_until", instance.args[0], encoded)
                repeat = len(self.answers.get(id(instance), []))
                self._note(instance, [Encoded(_seeded(encoded.request, repeat), encoded.truncated)])
        return [""] * len(requests)

    def _chunks(self, requests: list[Any]) -> Iterator[list[Any]]:
        iterator = iter(requests)
        done = 0
        while chunk := list(islice(iterator, CHUNK)):
            yield chunk
            done += len(chunk)
            self._progress(done, len(requests))

    def _note(self, instance: Any, encoded: Sequence[Encoded]) -> None:
        hashes = [self._writer.add(part.request, truncated=part.truncated) for part in encoded]
        self.answers.setdefault(id(instance), []).append(hashes)

    def _keep_first(self, kind: str, text: str, encoded: Encoded) -> None:
        if kind not in self.first_prompts and text:
            request = encoded.request
            ids = request.prompt if isinstance(request, Generate) else request.context
            self.first_prompts[kind] = FirstPrompt(kind, text, ids, encoded.truncated)


def _texts(context: str, continuation: str) -> tuple[str, ...]:
    """The texts that `_encode_pair` will encode."""
    if not context:
        return ()
    return context + continuation, context.rstrip()


def _seeded(request: Loglikelihood | Generate, repeat: int) -> Loglikelihood | Generate:
    """A sampled generation with a seed that follows from the request and the repeat; a greedy one as it is."""
    if not isinstance(request, Generate) or request.sampling.get("temperature", 0.0) == 0.0:
        return request
    digest = hashlib.sha256(f"{request.id} {repeat}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
    identifier = generate_id(
        request.prompt, max_tokens=request.max_tokens, stop=request.stop, sampling=request.sampling, seed=seed
    )
    return msgspec.structs.replace(request, id=identifier, seed=seed)
