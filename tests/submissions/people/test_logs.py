"""What the web process logs holds no secret, whoever wrote the line."""

import logging

import pytest

from submissions.logs import WithoutSecrets, redacted


@pytest.mark.parametrize(
    "line",
    [
        "GET /x HTTP/1.1 authorization: Bearer {}",
        "could not use {}",
        "https://user:{}@broker/0",
        "GET /signin/back?state={}&code=x",
        "GET /signin/back?state=x&code={}",
        "cookie: a=b; evalyard-session={}; c=d",
        "cookie: __Host-evalyard-session={}",
    ],
)
def test_no_secret_is_in_a_line(line: str) -> None:
    secret = "evy_" + "s3cr3t" * 8
    assert "s3cr3t" not in redacted(line.format(secret))
    assert "s3cr3t" not in redacted(line.format("s3cr3t" * 4)) or "could not" in line


def test_a_traceback_is_redacted_too() -> None:
    try:
        raise ValueError("evy_" + "x" * 43)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "it failed", None, (type(error), error, None))
    assert "evy_" not in WithoutSecrets("%(message)s").format(record)
