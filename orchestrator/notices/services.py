"""Sends one message to one address, by Apprise. What it says of a failure never shows the address."""

import logging
from typing import Any

from orchestrator.errors import SettingsError
from orchestrator.notices.events import Message
from orchestrator.notices.targets import Target

SEND_SECONDS = 30.0
"""A service that takes longer is tried again later; less than `outbox.HOLD`."""


def make_service(target: Target) -> Any:
    """The service of a target's address.

    Raises:
        SettingsError: no service is called so; the sentence does not show the address.
    """
    import apprise  # takes a while, and only control sends

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines may hold parts of addresses
    asset = apprise.AppriseAsset(app_id="Evalyard", app_desc="Evalyard", async_mode=False, secure_logging=True)
    service = apprise.Apprise(asset=asset)
    if not service.add(target.address()):
        raise SettingsError(
            f"The address of target '{target.name}' in the notifications file is none that Apprise knows. Write it as "
            "docs/notifications.md shows, such as mailtos://… or jsons://…."
        )
    return service


def send_by_apprise(target: Target, message: Message) -> str:
    """Send a message; returns what went wrong, empty when the service took it."""
    import apprise

    try:
        taken = make_service(target).notify(
            title=message.subject, body=message.body, body_format=apprise.NotifyFormat.TEXT, timeout=SEND_SECONDS
        )
    except SettingsError as error:
        return error.sentence
    except Exception as error:
        return f"The service failed ({type(error).__name__})."
    return "" if taken else "The service refused it or did not answer."
