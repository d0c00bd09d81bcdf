"""Why somebody may not: each of these is one status of HTTP, with its sentence."""

from orchestrator.errors import EvalyardError


class NotSignedIn(EvalyardError):
    """Nobody is known to ask, and somebody must be."""


class NotAllowed(EvalyardError):
    """Whoever asks is known and may not do this."""


class SignInRefused(EvalyardError):
    """Somebody's sign-in did not hold, or they are who they say and may not come in all the same."""


class ProviderAway(EvalyardError):
    """The identity provider does not answer, or not as one does; nobody was signed in."""


class TooMany(EvalyardError):
    """Somebody asks too often, or for too much."""

    def __init__(self, sentence: str, *, retry_after: int = 60) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        """Seconds."""
