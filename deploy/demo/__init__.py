"""The demo: two tiny models, built on the spot, through the whole line. Not part of the wheel."""

from pathlib import Path

UNTRAINED = "tiny-untrained"
TRAINED = "tiny-trained"


def are_built(folder: Path) -> bool:
    """Whether both models are below the folder; each has its card once it is complete."""
    return all((folder / name / "README.md").exists() for name in (UNTRAINED, TRAINED))
