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
