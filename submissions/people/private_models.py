"""Who may have a private repository evaluated. Pure.

The server's Hub token reads for everybody, so it would lend its rights to whoever submits. Operators have them anyway;
others only where a setting says that a team of theirs may submit an organisation's models.
"""

from orchestrator.people import Role, Scope
from orchestrator.settings import HubSettings
from submissions.opening import MayRead
from submissions.people.viewer import Viewer


def may_read(viewer: Viewer, settings: HubSettings) -> MayRead:
    """Whether the viewer may have a private repository of this name, or of one that is not known, evaluated."""

    def answer(name: str) -> bool:
        if viewer.may(Role.OPERATOR, Scope.SUBMIT):
            return True
        organisation = name.partition("/")[0].lower() if "/" in name else ""
        # Teams are in lower case already. Folded, two of them could be one.
        return any((organisation, team) in settings.private_teams for team in viewer.teams)

    return answer
