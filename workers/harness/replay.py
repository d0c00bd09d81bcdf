"""An lm-eval model that answers from stored responses, found by hash. It computes nothing and guesses nothing."""

from typing import Any, NamedTuple

from lm_eval.api.model import LM
from lm_eval.models.utils import postprocess_generated_text

from workers.harness import session
from workers.harness.responses import Responses


class TokenizerFacts(NamedTuple):
    """What lm-eval's results record says of a tokenizer."""

    pad_token: str | None
    pad_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    bos_token: str | None
    bos_token_id: int | None


class ReplayLM(LM):  # type: ignore[misc]  # lm-eval has no types for mypy
    """What lm-eval sees as the model while a benchmark is scored."""

    def __init__(
        self,
        responses: Responses,
        requests: dict[int, list[list[str]]],
        *,
        stops: dict[str, list[str]],
        plan: dict[str, Any],
    ) -> None:
        super().__init__()
        tokens = plan["tokenizer"]
        self.tokenizer = TokenizerFacts(*tokens["pad"], *tokens["eos"], *tokens["bos"])
        self.eot_token_id = self.tokenizer.eos_token_id
        self.max_length = plan["context_limit"]
        self._responses = responses
        self._requests = requests
        self._stops = stops
        self._plan = plan
        self._repeats: dict[int, int] = {}

    @property
    def tokenizer_name(self) -> str:
        return ""

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        template = self._plan["chat_template_text"]
        return str(template) if chat_template and template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        raise NotImplementedError("A sheet's prompts are not written again.")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        answers = []
        for request in requests:
            hashes = self._next(request)
            if hashes:
                response = self._responses.scored(hashes[0])
                answers.append((response.logprob, response.greedy))
            else:  # an empty continuation, which lm-eval's vllm back end answers like this
                answers.append((0.0, True))
        return self._done(answers)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return self._done(
            [sum(self._responses.scored(window).logprob for window in self._next(request)) for request in requests]
        )

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = []
        for request in requests:
            (identifier,) = self._next(request)
            raw = self._responses.generated(identifier).text
            answers.append(postprocess_generated_text(raw, self._stops[identifier], None))
        return self._done(answers)

    def _next(self, request: Any) -> list[str]:
        """The hashes that answer the next repeat of an instance."""
        repeat = self._repeats.get(id(request), 0)
        self._repeats[id(request)] = repeat + 1
        return self._requests[id(request)][repeat]

    def _done(self, answers: list[Any]) -> list[Any]:
        # Scorers that draw from the global generators go on where request building left them.
        session.restore_random_state(self._plan["random_state"])
        return answers
