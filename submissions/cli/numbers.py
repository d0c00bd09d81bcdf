"""Whole numbers of the command line, refused in words that say what the number is for."""

from collections.abc import Callable

import typer


def whole_number(least: int, *, otherwise: str, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`; `otherwise` says what to give instead of a wrong one."""

    def number(text: str) -> int:
        try:
            value = int(str(text))
        except ValueError:
            raise typer.BadParameter(f"'{str(text)[:40]}' is no whole number. {otherwise}") from None
        if value < least:
            raise typer.BadParameter(f"{value} is too small; the least is {least}. {otherwise}")
        if most is not None and value > most:
            raise typer.BadParameter(f"{value} is too large; the most is {most}. {otherwise}")
        return value

    return number


evaluation_number = whole_number(1, otherwise="Give the number of an evaluation: `evalyard status` lists them.")
documents = whole_number(1, otherwise="Take at least 1 document for each task, or leave it out for all.")
examples = whole_number(0, otherwise="Give the number of examples in each prompt, such as 5.")
tokens = whole_number(2, otherwise="Give a number of tokens, such as 4096.")
port = whole_number(0, most=65535, otherwise="Give a port such as 8765, or 0 for any that is free.")
