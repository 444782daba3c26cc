"""Which addresses are fetched, and where a redirect leads."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from urllib.parse import urljoin, urlsplit

import requests


class Refused(Exception):
    """The server will not give the file, and asking again would not help; the words say why."""


def check_address(url: str) -> None:
    """Raise Refused unless `url` is http or https to an ordinary host."""
    try:
        url.encode()
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise Refused("it is no address at all") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Refused("only http and https addresses are fetched")
    check_host(host)


def check_host(host: str) -> None:
    """Raise Refused for an address of the machine's own infrastructure (link-local), in every spelling.

    A name that leads to such an address is seen once it is connected to.
    """
    address = _ip_address(host)
    if address is not None and address.is_link_local:
        raise Refused("an address of the machine's own infrastructure is not fetched")


def is_protected(url: str) -> bool:
    """Whether nobody on the way to `url` can change what comes: https, or this very machine."""
    parts = urlsplit(url)
    address = _ip_address(parts.hostname or "")
    return parts.scheme == "https" or parts.hostname == "localhost" or (address is not None and address.is_loopback)


def redirect_target(response: requests.Response) -> str:
    """Where an answer redirects to; user and password are kept on the same host only.

    Raises Refused for what is not fetched, and for a step from https to http.
    """
    location = response.headers["Location"]
    try:
        target = urljoin(response.url, location.encode("latin-1").decode("utf-8"))
        new, old = urlsplit(target), urlsplit(response.url)
        same_host = (new.scheme, new.hostname, new.port) == (old.scheme, old.hostname, old.port)
    except ValueError:
        raise Refused("the server redirects to what is no address") from None
    check_address(target)
    if old.scheme == "https" and new.scheme != "https":
        raise Refused("the server redirects from https to an address that is not protected")
    return new._replace(netloc=old.netloc).geturl() if same_host else target


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host's spelling stands for: `0xA9FEA9FE` and `::ffff:169.254.169.254` too; None for a name."""
    host = host.rstrip(".").partition("%")[0]
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 4:
            return address
        # IPv4 within IPv6: mapped, and by the translation of RFC 6052.
        inner = int(address) & 0xFFFFFFFF if int(address) >> 32 == 0x64FF9B << 64 else None
        return address.ipv4_mapped or (address if inner is None else ipaddress.IPv4Address(inner))
    # What a C library takes for an IPv4 address: fewer parts, octal, hexadecimal, digits of other scripts.
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host.encode("idna").decode("ascii")))
    return None
