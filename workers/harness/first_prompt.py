"""A look at the first prompts before the long run: a doubled BOS or a template left out makes a whole board wrong.

Pure. It never changes a prompt: what lm-eval's back end would send is sent, and what is odd about it is told.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FirstPrompt:
    """The first prompt of a kind of request that is not empty."""

    kind: str
    text: str
    ids: list[int]
    truncated: bool

    def leading(self, token: int | None) -> int:
        """How many times `token` stands at the beginning."""
        count = 0
        while token is not None and count < len(self.ids) and self.ids[count] == token:
            count += 1
        return count

    def describe(self, bos: int | None) -> dict[str, Any]:
        """For the provenance."""
        return {"tokens": len(self.ids), "leading_bos": self.leading(bos), "ids": self.ids[:8]}


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its beginning-of-sequence token before a text."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a").input_ids)[:1] == [bos]


def find_oddities(
    prompts: Iterable[FirstPrompt], *, bos: int | None, bos_is_added: bool, rendered: Collection[int] | None
) -> list[str]:
    """A sentence for each thing that a person should know before the scores are believed.

    `rendered` holds the hashes of all texts that the chat template made; None without chat template.
    """
    found: dict[str, None] = {}
    for prompt in prompts:
        count = prompt.leading(bos)
        if count > 1:
            found[
                f"The first prompt begins with {count} beginning-of-sequence tokens: the model's "
                f"{'tokenizer' if rendered is None else 'chat template or tokenizer'} writes too many. lm-eval sends "
                "it so, too; scores may suffer until the model repository is mended."
            ] = None
        # A prompt that was cut from the left has lost its BOS, as lm-eval cuts it.
        if count == 0 and bos_is_added and not prompt.truncated:
            found[
                "The first prompt begins with no beginning-of-sequence token although the model's tokenizer adds one. "
                "lm-eval sends it so, too."
            ] = None
        if rendered is not None and hash(prompt.text) not in rendered:
            found[
                "The first prompt is not what the chat template made of the conversation: the task changes it "
                "afterwards, or leaves the template out. Look at a sample before its scores are believed."
            ] = None
    return list(found)
