"""The encoding of lm-eval's `vllm` and `hf` back ends, without their engines: from an instance to token ids.

What is generic in lm-eval (`_encode_pair`, windows, normalised generation arguments) is called, not repeated; what its
two classes do themselves is repeated here line by line, and tests compare it with what those classes send.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from lm_eval.api.model import TemplateLM
from lm_eval.models import utils as lm_eval_models
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from orchestrator.wire import FailureKind
from workers.harness.model_files import ModelFiles
from workers.sheets import Generate, Loglikelihood, generate_id, loglikelihood_id
from workers.stage import StageFailure

DEFAULT_MAX_TOKENS = 256
"""New tokens of a generation whose task does not say: the same in both back ends."""


@dataclass(frozen=True)
class Encoded:
    request: Loglikelihood | Generate
    truncated: bool
    """Whether tokens were dropped to fit the context limit."""


class Rules(TemplateLM):  # type: ignore[misc]  # lm-eval has no types for mypy
    """Tokenizer side of a back end. Subclasses say what differs; answering is not its business."""

    name = ""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self.files = files
        self.tokenizer = files.tokenizer
        self.max_length = files.context_limit
        self.eos = self._eos_text()
        self._encoded: dict[str, list[int]] = {}

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def _eos_text(self) -> str:
        raise NotImplementedError

    def warm(self, strings: Iterable[str]) -> None:
        """Encode many texts at once; `tok_encode` then finds them. Replaces what was warmed before."""
        wanted = sorted({string for string in strings if string})
        self._encoded = dict(zip(wanted, self.encode_many(wanted), strict=True)) if wanted else {}

    def encode_many(self, strings: Sequence[str]) -> list[list[int]]:
        """Each text as `tok_encode` without arguments would encode it: both back ends do it alike."""
        bos = self.tokenizer.decode(self.prefix_token_id)
        marked = [text for text in strings if lm_eval_models.has_bos_prefix(text, bos)]
        plain = [text for text in strings if not lm_eval_models.has_bos_prefix(text, bos)]
        # A text that already begins with BOS (chat templates write it) must not get another.
        found = dict(zip(marked, self._call(marked, add_special_tokens=False), strict=True))
        found.update(zip(plain, self._call(plain), strict=True))
        return [found[text] for text in strings]

    def _call(self, strings: Sequence[str], **kwargs: Any) -> list[list[int]]:
        return list(self.tokenizer(list(strings), return_attention_mask=False, **kwargs).input_ids) if strings else []

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        raise NotImplementedError

    def split(self, context: list[int], continuation: list[int]) -> Encoded | None:
        """Cut a pair to the context limit; None where the back end answers (0, true) without asking the model."""
        raise NotImplementedError

    def windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Disjoint windows of a text whose every token is scored."""
        pairs = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self._window_length(),
            context_len=1,
        )
        return [make_disjoint_window(pair) for pair in pairs]

    def _window_length(self) -> int:
        raise NotImplementedError

    def generation(self, prompt: list[int], arguments: dict[str, Any], *, task: str) -> Encoded:
        """A generation request, not yet seeded."""
        raise NotImplementedError

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Prompts of generations, which the `hf` back end encodes differently from contexts."""
        raise NotImplementedError

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        """Hand back what would be scored: `loglikelihood` then encodes and answers nothing."""
        return requests

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it; without the system turn where the template refuses it."""
        try:
            return self._render(chat_history, add_generation_prompt)
        except jinja2.exceptions.TemplateError:
            pass
        try:
            return self._render([turn for turn in chat_history if turn["role"] != "system"], add_generation_prompt)
        except jinja2.exceptions.TemplateError as error:
            raise StageFailure(
                FailureKind.CHAT_TEMPLATE,
                f"The model's chat template refuses this benchmark's conversation: {error} Submit without chat "
                f"template.",
            ) from error

    def _render(self, chat_history: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **self._template_arguments(),
            )
        )

    def _template_arguments(self) -> dict[str, Any]:
        raise NotImplementedError


class VllmRules(Rules):
    """As `lm_eval.models.vllm_causallms.VLLM`."""

    name = "vllm"

    def _eos_text(self) -> str:
        text = str(self.tokenizer.decode(self.eot_token_id))
        return text or str(getattr(self.tokenizer, "eos_token", None) or "")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if not string:
            return []
        if add_special_tokens is None:
            return self._encoded.get(string) or self.encode_many([string])[0]
        bos = self.tokenizer.decode(self.prefix_token_id)
        special = add_special_tokens and not lm_eval_models.has_bos_prefix(string, bos)
        return self._call([string], add_special_tokens=special)[0]

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        return self.encode_many(prompts)

    def split(self, context: list[int], continuation: list[int]) -> Encoded | None:
        room = self.max_length - 1  # vLLM always generates one token
        whole = (context + continuation)[-room:]
        overflow = max(0, len(context) + len(continuation) - room)
        cut = len(context) - overflow
        if cut == len(whole):
            return None
        # A negative cut is lm-eval's own: of a continuation longer than the limit it scores only as many last tokens.
        left, right = whole[:cut], whole[cut:]
        if not left:
            raise StageFailure(
                FailureKind.TASK_REFUSED,
                f"A continuation of {len(continuation)} tokens leaves no context within the model's limit of "
                f"{self.max_length}, where lm-eval's vllm back end stops too. Leave the benchmark out.",
            )
        return Encoded(Loglikelihood(loglikelihood_id(left, right), left, right), overflow > 0)

    def _window_length(self) -> int:
        return self.max_length - 2

    def generation(self, prompt: list[int], arguments: dict[str, Any], *, task: str) -> Encoded:
        sampling = dict(lm_eval_models.normalize_gen_kwargs(arguments, default_max_gen_toks=DEFAULT_MAX_TOKENS))
        stop = lm_eval_models.handle_stop_sequences(sampling.pop("until", None), eos=self.eos)
        wanted = int(sampling.pop("max_gen_toks"))
        sampling.pop("do_sample", None)
        # vLLM's own default, made explicit: lm-eval leaves the temperature out when a task gives none, and so samples.
        sampling = {"skip_special_tokens": False, "spaces_between_special_tokens": False, "temperature": 1.0} | sampling
        kept, most = lm_eval_models.maybe_truncate(
            prompt, max_gen_toks=wanted, max_model_len=self.max_length, side="left", verbose=False
        )
        if not 0 < len(kept) < self.max_length:
            raise _no_room(task, most, self.max_length)
        return Encoded(_generate(kept, most, stop, sampling), len(kept) < len(prompt))

    def _template_arguments(self) -> dict[str, Any]:
        return {"chat_template": self.files.chat_template, "enable_thinking": None}


class HfRules(Rules):
    """As `lm_eval.models.huggingface.HFLM` for causal models with batch size 1."""

    name = "hf"

    def _eos_text(self) -> str:
        return str(self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if add_special_tokens is not None:
            return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))
        return self._encoded.get(string) or self.encode_many([string])[0]

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        bos = getattr(self.tokenizer, "bos_token", None)
        marked = {text: lm_eval_models.has_bos_prefix(text, bos) for text in prompts}
        plain = [text for text, has in marked.items() if not has]
        own = [text for text, has in marked.items() if has]
        found = dict(zip(plain, self._call(plain), strict=True))
        found.update(zip(own, self._call(own, add_special_tokens=False), strict=True))
        return [found[text] for text in prompts]

    def split(self, context: list[int], continuation: list[int]) -> Encoded | None:
        if not context or not continuation or len(continuation) > self.max_length:
            raise StageFailure(
                FailureKind.TASK_REFUSED,
                f"lm-eval's hf back end cannot score a continuation of {len(continuation)} tokens after a context of "
                f"{len(context)} with a limit of {self.max_length}. Leave the benchmark out.",
            )
        whole = (context + continuation)[-(self.max_length + 1) :]
        left = whole[: -len(continuation)]
        truncated = len(left) < len(context)
        return Encoded(Loglikelihood(loglikelihood_id(left, continuation), left, continuation), truncated)

    def _window_length(self) -> int:
        return self.max_length

    def generation(self, prompt: list[int], arguments: dict[str, Any], *, task: str) -> Encoded:
        sampling = dict(lm_eval_models.normalize_gen_kwargs(arguments, DEFAULT_MAX_TOKENS))
        stop = lm_eval_models.handle_stop_sequences(sampling.pop("until", None), eos=self.eos)
        most = int(sampling.pop("max_gen_toks"))
        room = self.max_length - most
        if room <= 0:
            raise _no_room(task, most, self.max_length)
        kept = prompt[-room:]
        if "max_length" in sampling:
            most = int(sampling.pop("max_length")) - len(kept)
        # Greedy is said in one way in a sheet: temperature 0. HFLM does it when nothing is said, too.
        if not sampling.pop("do_sample", False):
            sampling["temperature"] = 0.0
        else:
            sampling = {"do_sample": True, "temperature": 0.0} | sampling
        if not kept or most <= 0:
            raise _no_room(task, most, self.max_length)
        return Encoded(_generate(kept, most, stop, sampling), len(kept) < len(prompt))

    def _template_arguments(self) -> dict[str, Any]:
        return {}


def make(files: ModelFiles) -> Rules:
    """The rules a model's files were loaded for."""
    return VllmRules(files) if files.rules == "vllm" else HfRules(files)


def _generate(prompt: list[int], most: int, stop: list[str], sampling: dict[str, Any]) -> Generate:
    identifier = generate_id(prompt, max_tokens=most, stop=stop, sampling=sampling, seed=None)
    return Generate(identifier, prompt, most, stop, sampling)


def _no_room(task: str, most: int, limit: int) -> StageFailure:
    return StageFailure(
        FailureKind.TASK_REFUSED,
        f"Task {task} asks for up to {most} new tokens, which leaves no room for a prompt within the model's context "
        f"limit of {limit} tokens. Leave it out, or give a smaller max_gen_toks in gen_kwargs.",
    )
