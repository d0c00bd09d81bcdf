"""Paths of the command line, refused in words that say what to give instead."""

from pathlib import Path

import typer


def folder(text: str) -> Path:
    """A folder, there already or still to be made."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{text} is a file. Give a folder; one that is not there is made.")
    return path


def present(text: str) -> Path:
    """A file or folder that is there."""
    path = Path(text)
    if not path.exists():
        raise typer.BadParameter(f"There is no {text}, seen from {Path.cwd()}. Give its whole path, or mend its name.")
    return path
