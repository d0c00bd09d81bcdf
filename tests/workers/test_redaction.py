import pytest

from workers.redaction import HIDDEN, Redactor


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token hf_abcdefghijklmnopqrstuvwxyz end", f"token {HIDDEN} end"),
        ("redis://:pass/word@host", "redis://:pass/word@host"),
        ("redis://:passphrase@host:1/0", f"redis://{HIDDEN}@host:1/0"),
        ("Authorization: Bearer abcdefghijkl", f"Authorization: Bearer {HIDDEN}"),
        ("the known secret1", f"the known {HIDDEN}"),
        ("nothing to hide: 12:30 a@b", "nothing to hide: 12:30 a@b"),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_left_alone(text: str, shown: str):
    assert Redactor(["secret1", None, "", "abc"])(text) == shown
