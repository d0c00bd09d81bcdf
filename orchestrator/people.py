"""Words for people: their roles, what a token may be used for, who may see a submission. Knows no table."""

from enum import StrEnum


class Role(StrEnum):
    """What a person is to this hub; each may do what the one before may."""

    SUBMITTER = "submitter"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        ladder = list(Role)
        return ladder.index(self) >= ladder.index(other)


class Scope(StrEnum):
    """What a token may be used for, within what its person may do."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"


class Visibility(StrEnum):
    """Who may see a submission beside the one who made it and the operators."""

    PUBLIC = "public"
    TEAM = "team"
    PRIVATE = "private"


def seen_by(visibility: Visibility, *, person: int | None, team: str | None) -> str:
    """Who may see a submission, as part of its evaluations' keys; empty for everybody."""
    if visibility is Visibility.PUBLIC:
        return ""
    return f"team {team}" if visibility is Visibility.TEAM else f"person {person}"
