"""Sends notices. A thread of the control process: a service that hangs or fails keeps nothing else waiting.

Nothing is sent while a transaction is open. What a service answers is not logged, for it may repeat its address.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from orchestrator import db
from orchestrator.notices import outbox
from orchestrator.notices.events import Message, together, write
from orchestrator.notices.outbox import Recipient
from orchestrator.notices.own import Sender, load_own
from orchestrator.notices.services import SEND_SECONDS, make_service, send_by_apprise
from orchestrator.notices.targets import Target, Targets, read_hub_targets
from orchestrator.sealing import open_sealer
from orchestrator.settings import HubSettings

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
AT_A_TIME = 8
"""Of people's own targets."""

Send = Callable[[Target, Message], str]
"""Sends a message to a target; returns what went wrong as a sentence, empty when it was taken."""


@dataclass(frozen=True)
class Notifier:
    """What a round needs."""

    engine: Engine
    told: Targets
    send: Send
    own: Sender | None = None
    """Sends to people's own targets; None where there are no accounts."""
    clock: Callable[[], float] = time.monotonic

    def round(self, now: datetime) -> int:
        """Tell what there is to tell; returns how many messages were sent."""
        with db.session(self.engine, read_only=True) as session:
            if not outbox.is_anything(session, now=now):
                return 0
            own = load_own(session, has_mail=self.own.mail is not None) if self.own is not None else []
        everybody: list[Recipient] = [*self.told.targets, *own]
        with db.session(self.engine) as session:
            outbox.spread(session, everybody, now=now)
        by_target: dict[str, list[outbox.Held]] = defaultdict(list)
        with db.session(self.engine) as session:
            holder, everything = outbox.hold(session, everybody, now=now)
        for held in everything:
            by_target[held.target].append(held)
        sent = 0
        # What is begun later might be taken up by another sender meanwhile: it comes free for a later round.
        end = self.clock() + outbox.HOLD.total_seconds() - SEND_SECONDS
        for target in self.told.targets:
            if (due := by_target.get(target.name)) and self.clock() < end:
                trouble = self.send(target, self._message(due))
                sent += self._settle(holder, due, trouble=trouble, now=now)
        waiting = [(one, due) for one in own if (due := by_target.get(one.name))]
        if self.own is not None and waiting:
            # Strangers' addresses: one that hangs must not keep the others waiting for as long as notices are held.
            with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="own-notices") as pool:
                for start in range(0, len(waiting), AT_A_TIME):
                    some = waiting[start : start + AT_A_TIME]
                    if self.clock() >= end:
                        break
                    troubles = pool.map(
                        self.own.send, [one for one, _ in some], [self._message(due) for _, due in some]
                    )
                    for (_, due), trouble in zip(some, troubles, strict=True):
                        sent += self._settle(holder, due, trouble=trouble, now=now)
        return sent

    def _message(self, due: list[outbox.Held]) -> Message:
        return together(write(held.facts, site=self.told.site) for held in due)

    def _settle(self, holder: str, due: list[outbox.Held], *, trouble: str, now: datetime) -> bool:
        """Write down how it went; whether it was sent."""
        if trouble:
            log.warning("notices_not_sent target=%s notices=%s sentence=%s", due[0].target, len(due), trouble)
        with db.session(self.engine) as session:
            for held in due:
                outbox.settle(session, holder, held, trouble=trouble, now=now)
        return not trouble


def start_notifier(hub: HubSettings, engine: Engine, *, stopping: threading.Event) -> threading.Thread:
    """Send from now on, in a thread of its own.

    Raises:
        SettingsError: the notifications file has a mistake, or names a service that there is not.
    """
    told = read_hub_targets(hub)
    for target in told.targets:
        make_service(target)
    own = Sender(open_sealer(hub), told.mail, hub.open_webhook_hosts) if hub.has_accounts else None
    notifier = Notifier(engine, told, send_by_apprise, own)
    thread = threading.Thread(target=run, args=(notifier, stopping), name="notifier", daemon=True)
    thread.start()
    return thread


def run(notifier: Notifier, stopping: threading.Event) -> None:
    """One round after the other until told to stop; whatever goes wrong is logged and the next round starts afresh."""
    while not stopping.is_set():
        try:
            notifier.round(datetime.now(UTC))
        except OperationalError as error:
            db.log_lost(log, error)
        except Exception as error:
            # Without the traceback: a library's may show the address.
            log.error("notifier_failed error=%s", type(error).__name__)
        stopping.wait(EVERY_SECONDS)
