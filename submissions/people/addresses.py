"""From which address a request comes, where proxies stand in front: what limits of those who have not signed in count.

An address is believed from a trusted proxy alone, as anybody may write the header.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
SITE_BITS = 64
"""Of an IPv6 address: the rest is its owner's to choose, so that one host has more addresses than can be counted."""


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas.

    Raises:
        ValueError: one is neither.
    """
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def address_of(peer: str, forwarded: str, trusted: Iterable[Network]) -> str:
    """The nearest address that no trusted proxy has; `forwarded` is what `X-Forwarded-For` says, nearest last. Pure."""
    proxies = tuple(trusted)
    found = peer
    for hop in (part.strip() for part in reversed(forwarded.split(","))):
        if not hop or not _is_trusted(found, proxies):
            break
        found = hop
    return _shortened(found)


def _is_trusted(address: str, proxies: Iterable[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    # A proxy of the same host is one that its owner has put there.
    return parsed.is_loopback or any(parsed in network for network in proxies)


def _shortened(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((parsed, SITE_BITS), strict=False))
    return str(parsed)
