"""What the rows of log-probabilities that vLLM returns say about the requests. Pure; knows no engine.

vLLM leaves rows unset, without a word, for tokens that its prefix cache held already. A row is believed only if it was
computed for this very request, or for a sibling that shares the context and the continuation up to that token: the
model was given the same tokens there, so the row is the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from workers.segments import Scored
from workers.sheets import Loglikelihood


class Token(NamedTuple):
    """One token of a continuation, as the model sees it after all before it."""

    logprob: float
    greedy: bool
    """Nothing is more likely: on an exact tie lm-eval counts the asked token, too."""


@dataclass
class Siblings:
    """Continuations of one context that were sent together, and what is known of their tokens."""

    left: int
    """Continuations that are not answered yet."""
    _known: list[tuple[list[int], list[Token]]] = field(default_factory=list)

    def remember(self, continuation: list[int], tokens: list[Token]) -> None:
        self.left -= 1
        if self.left:
            self._known.append((continuation, tokens))
        else:
            self._known.clear()

    def first_tokens(self, continuation: list[int], count: int) -> list[Token] | None:
        """The first tokens of a continuation, from a sibling that begins alike; None when no one does."""
        for other, tokens in self._known:
            if other[:count] == continuation[:count] and len(tokens) >= count:
                return tokens[:count]
        return None


def read_one_token(requests: Sequence[Loglikelihood], output: Any) -> list[Scored]:
    """All one-token continuations of a context, from the one row after it."""
    completion = output.outputs[0]
    row = completion.logprobs[0]
    best = row[completion.token_ids[0]].logprob
    scored: list[Scored] = []
    for request in requests:
        logprob = row[request.continuation[0]].logprob
        scored.append(Scored(request.id, logprob, logprob >= best))
    return scored


def read_continuation(
    request: Loglikelihood, rows: Sequence[Any], *, cached: int, siblings: Siblings
) -> list[Token] | None:
    """The continuation's tokens, from the rows of the whole prompt, whose first `cached` tokens were in the cache.

    The row of a token is computed where the token before it is, so rows up to `cached` are unset. Rows are counted from
    the end: some runners return only those they computed. None when a row can be had from nowhere, or is no
    log-probability: then the request is to be sent again.
    """
    unset = min(max(0, cached + 1 - len(request.context)), len(request.continuation))
    tokens = siblings.first_tokens(request.continuation, unset) if unset else []
    if tokens is None:
        return None
    wanted = request.continuation[unset:]
    if len(rows) < len(wanted):
        return None
    for token, row in zip(wanted, rows[len(rows) - len(wanted) :], strict=True):
        if not row or token not in row:
            return None
        logprob = row[token].logprob
        if not math.isfinite(logprob):
            return None
        tokens.append(Token(logprob, logprob >= max(entry.logprob for entry in row.values())))
    return tokens


def score(request: Loglikelihood, tokens: Sequence[Token]) -> Scored:
    return Scored(request.id, sum(token.logprob for token in tokens), all(token.greedy for token in tokens))
