"""How `--help` lists commands: each with its whole first sentence, under what people come to do."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperGroup

LONGEST = 300
"""Characters of a first sentence: enough for any; what does not fit a line goes on in the next."""


class Listing(TyperGroup):
    """A group of commands under one title, or under several where it names them."""

    titles: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Commands by title; any others come last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        left = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        widest = max(map(len, left), default=0)
        listed = [
            (title, [(name, left.pop(name)) for name in names if name in left]) for title, names in self.titles.items()
        ]
        for title, commands in [*listed, ("Commands", list(left.items()))]:
            if commands:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name.ljust(widest), one.get_short_help_str(LONGEST)) for name, one in commands]
                    )
