"""Allowed Host headers, as a protection against DNS rebinding.

A web page's host name can be made to resolve to 127.0.0.1 after the page is loaded. The browser then lets the
page's scripts read responses of a local server, but it still sends the page's host name as the Host header.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d*)?")


@dataclass(frozen=True)
class Hosts:
    """The allowed hosts: loopback and `names`, or any host."""

    names: frozenset[str]
    any_host: bool

    @classmethod
    def of(cls, listening: str, allowed: Iterable[str] = ()) -> Hosts:
        """Return the allowed hosts for an address: loopback names if it is loopback, otherwise any host.

        Args:
            listening: the address that the server listens on.
            allowed: additional names. With them, an address that is not loopback allows these and loopback.
        """
        names = frozenset(name.lower().rstrip(".") for name in allowed)
        return cls(names, any_host=not names and not _is_loopback(listening))

    def allows(self, header: str) -> bool:
        """Return whether a Host header is allowed; its port does not matter."""
        if self.any_host:
            return True
        found = _HOST.fullmatch(header.strip())
        if not found:
            return False
        host = (found["six"] or found["name"] or "").lower().rstrip(".")
        return host in self.names or _is_loopback(host)


@lru_cache(maxsize=16)  # clients send the same few hosts
def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name, not an address
        return False
