"""Posts to addresses that people choose, and to nothing else: not to this network, nor to the hub's own machine.

The address is looked up once, and what was found is what is connected to: a name that means something else a moment
later leads nowhere. No answer is read but its status, no redirect followed.
"""

import json
import socket
import threading
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import httpcore

from orchestrator.errors import Refused

URL_CHARACTERS = 1000
SECONDS = 10.0
"""Each for connecting, for sending, and for a part of the answer."""
MOST_SECONDS = 20.0
"""For all of it; with the part that is waited for then, less than a delivery is held (`outbox.HOLD`)."""
NAT64 = IPv6Network("64:ff9b::/96")
NOT_PUBLIC = tuple(map(ip_network, ("64:ff9b:1::/48", "fec0::/10", "::/96", "192.0.0.0/24")))
"""What some versions of Python call global: a site's own NAT64 (RFC 8215) and what is of one site or host alone."""


class NotPublic(Exception):
    """The address leads into a network that is nobody's business."""


def check_webhook(url: str, allowed: Collection[str] = ()) -> str:
    """The address of a webhook as it is kept; `allowed` are hosts that need be neither public nor https.

    Its name is looked up: call it outside a transaction. One that is not known now is kept, as the look-up may be what
    fails, and one that is public now may be private later: sending looks again.

    Raises:
        Refused: it is none, or leads into a private network.
    """
    url = check_url(url, allowed)
    host = urlsplit(url).hostname or ""
    try:
        look_up(host, 443, anywhere=host in allowed)
    except NotPublic as error:
        raise Refused(
            "That address leads into a private network or to this machine. Give one on the internet; operators can "
            "allow a host of theirs (EVALYARD_WEBHOOK_HOSTS)."
        ) from error
    except (OSError, UnicodeError):
        pass
    return url


def check_url(url: str, allowed: Collection[str] = ()) -> str:
    """The address of a webhook, wherever its name leads. Pure.

    Raises:
        Refused: it is none.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if not host or len(url) > URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise Refused("A webhook is an address such as https://hooks.example.org/services/….")
    if parts.username or parts.password:
        raise Refused("A webhook's address holds no user or password; put the secret into its path.")
    if host in allowed and parts.scheme in ("http", "https"):
        return url
    if parts.scheme != "https" or port not in (None, 443):
        raise Refused("A webhook must be https, on the usual port; operators can allow a host of theirs.")
    return url


def post(url: str, content: dict[str, Any], *, allowed: Collection[str] = ()) -> str:
    """Post JSON; returns what went wrong as a sentence without the address, empty when it was taken."""
    try:
        check_url(url, allowed)
        body = json.dumps(content, ensure_ascii=False).encode()
        headers: dict[bytes | str, bytes | str] = {"content-type": "application/json", "user-agent": "Evalyard"}
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
        backend = _Backend(urlsplit(url).hostname in allowed)
        with httpcore.ConnectionPool(network_backend=backend, retries=0) as pool:
            # An answer that trickles in meets no timeout.
            end = threading.Timer(MOST_SECONDS, pool.close)
            end.start()
            try:
                with pool.stream(
                    "POST", url, headers=headers, content=body, extensions={"timeout": timeouts}
                ) as answer:
                    status = answer.status
            finally:
                end.cancel()
    except Refused as error:
        return error.sentence
    except NotPublic:
        return "Its address leads into a private network."
    except socket.gaierror:
        return "The name of its host is not known here."
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        return f"It did not answer ({type(error).__name__})."
    return "" if 200 <= status < 300 else f"It answered with status {status}."


def look_up(host: str, port: int, *, anywhere: bool) -> list[str]:
    """The addresses of a host, each of them public unless it may be `anywhere`.

    Raises:
        NotPublic: one of them is not.
        OSError, UnicodeError: the name is not known, or is none.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or (not anywhere and not all(map(_is_public, found))):
        raise NotPublic
    return found


class _Backend(httpcore.SyncBackend):
    """Connects to public addresses alone, by the number that was looked at."""

    def __init__(self, anywhere: bool) -> None:
        super().__init__()
        self._anywhere = anywhere

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = look_up(host, port, anywhere=self._anywhere)
        return super().connect_tcp(found[0], port, timeout, local_address, socket_options)


def _is_public(address: str) -> bool:
    """Whether it is an address of the internet, also where an IPv6 address stands for an IPv4 one."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if any(found in network for network in NOT_PUBLIC):
        return False
    if isinstance(found, IPv6Address):
        if found in NAT64:
            found = IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None) or found
    return found.is_global and not found.is_multicast
