"""What is told about the first prompts, and what is not worth a word."""

from workers.harness.first_prompt import FirstPrompt, find_oddities

BOS = 0


def prompt(*ids: int, text: str = "a text", truncated: bool = False) -> FirstPrompt:
    return FirstPrompt("loglikelihood", text, list(ids), truncated)


def oddities(*prompts: FirstPrompt, bos: int | None = BOS, added: bool = True, rendered: set[int] | None = None):
    return find_oddities(prompts, bos=bos, bos_is_added=added, rendered=rendered)


def test_one_bos_where_the_tokenizer_adds_one_is_as_it_should_be() -> None:
    assert oddities(prompt(BOS, 5, 6)) == []
    assert oddities(prompt(5, 6), added=False) == []
    assert oddities(prompt(5, 6), bos=None, added=False) == []


def test_too_many_and_none_are_told_once() -> None:
    (doubled,) = oddities(prompt(BOS, BOS, 5), prompt(BOS, BOS, 7))
    assert "2 beginning-of-sequence tokens" in doubled
    (missing,) = oddities(prompt(5, 6))
    assert "no beginning-of-sequence token" in missing


def test_a_prompt_that_was_cut_from_the_left_may_have_lost_its_bos() -> None:
    assert oddities(prompt(5, 6, truncated=True)) == []


def test_a_prompt_that_the_template_did_not_make_is_told() -> None:
    assert oddities(prompt(BOS, 5), rendered={hash("a text")}) == []
    (foreign,) = oddities(prompt(BOS, 5, text="another"), rendered={hash("a text")})
    assert "chat template" in foreign
