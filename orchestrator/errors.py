"""The errors that callers may treat differently, and what a person does next after each class of failure.

An error's text is a whole sentence that names the thing and the next step. Nothing here decides or logs.
"""

from orchestrator.wire import FailureKind


class EvalyardError(Exception):
    """Root of every error that is told to a person as it stands, without a traceback."""

    @property
    def sentence(self) -> str:
        return str(self)


class SettingsError(EvalyardError):
    """A setting is unknown, impossible or contradicts another; the process must not start."""


class DatabaseUnusable(EvalyardError):
    """The database cannot be reached, read or written, or its schema is not one this version knows."""


class NotFound(EvalyardError):
    """The named thing does not exist."""


def no_evaluation(number: int | str) -> NotFound:
    """What is said of a number that no evaluation has, or none that may be seen: in the same words everywhere."""
    return NotFound(f"There is no evaluation {number}. The latest ones are in the queue.")


class Refused(EvalyardError):
    """The request is understood and cannot be accepted as it stands."""


class WrongState(EvalyardError):
    """The thing exists, but its present state does not allow this."""


class NotYet(EvalyardError):
    """It is being made ready, and is there for whoever asks again in a few seconds."""


NEXT_STEPS: dict[FailureKind, str] = {
    FailureKind.DOWNLOAD: "Check that the Hub or the mirror can be reached from the worker, then retry.",
    FailureKind.GATED: (
        "Save a token of your own that reads it (/account) and submit it again, or let each worker's host have one "
        "(EVALYARD_HUB_TOKEN); then retry."
    ),
    FailureKind.CONFIG: "Add or mend config.json in the model's repository and submit the new commit.",
    FailureKind.TOKENIZER: "Add the tokenizer's files to the model's repository and submit the new commit.",
    FailureKind.CHAT_TEMPLATE: "Mend the chat template in the model's repository, or submit with --no-chat-template.",
    FailureKind.REMOTE_CODE: "Submit a version that transformers loads without the repository's own code.",
    FailureKind.ARCHITECTURE: "Use an engine version that knows this architecture, or another engine family.",
    FailureKind.WEIGHTS: "Upload complete safetensors weights with their index and submit the new commit.",
    FailureKind.PRECISION: "Submit with the precision that the weights were saved in.",
    FailureKind.OUT_OF_MEMORY: "Retry on a worker with more memory, or submit with a smaller precision.",
    FailureKind.INVALID_OUTPUT: "Check the weights and the precision: its answers are not usable numbers or text.",
    FailureKind.DATASET: "Put the dataset into the mirror (EVALYARD_DATASETS) or let the worker read it, then retry.",
    FailureKind.TASK_REFUSED: "Mend the benchmark's tasks in the suite, or leave it out.",
    FailureKind.HARNESS: "Read the log's end: lm-eval stopped with an error. Retry once its cause is gone.",
    FailureKind.SHEET: "Retry: the benchmark is prepared again, and what is answered already stays answered.",
    FailureKind.RESPONSES: "Retry: what is missing is computed again, and then the benchmark is scored.",
    FailureKind.ENGINE: "Read the log's end: the engine stopped with an error. Retry once its cause is gone.",
    FailureKind.TIMEOUT: "Retry, on a faster worker or with a smaller --limit.",
    FailureKind.NODE_LOST: "Check that the worker's host is up and reaches the broker, then retry.",
    FailureKind.STORAGE: "Check that the artifact store is reachable, and that it and the worker's disk have room.",
    FailureKind.TOO_LARGE: "Give the worker a larger budget (EVALYARD_WORKER_WEIGHTS_BYTES) or disk, then retry.",
    FailureKind.SANDBOX: "Retry once the sandbox of a harness worker works (docs/generated-code.md).",
    FailureKind.SUITE: "Bring the suite file back in the version that was submitted and retry, or submit again.",
    FailureKind.CANCELLED: "Submit again if the evaluation is still wanted.",
}


NEXT_STEPS_OF_A_FOLDER = NEXT_STEPS | {
    FailureKind.CONFIG: "Add or mend config.json in the model's folder and submit it again.",
    FailureKind.TOKENIZER: "Add the tokenizer's files to the model's folder and submit it again.",
    FailureKind.CHAT_TEMPLATE: "Mend the chat template in the model's folder, or submit with --no-chat-template.",
    FailureKind.REMOTE_CODE: "Submit a version that transformers loads without code of its own.",
    FailureKind.WEIGHTS: "Put complete safetensors weights with their index into the folder and submit it again.",
}
"""Of a local folder, which has neither repository nor commits."""


def next_step(kind: FailureKind, *, is_folder: bool = False) -> str:
    """The sentence that tells a submitter or an operator what to do after a failure of this kind."""
    return (NEXT_STEPS_OF_A_FOLDER if is_folder else NEXT_STEPS)[kind]
