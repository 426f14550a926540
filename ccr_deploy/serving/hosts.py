"""Which Host headers are answered.

A web page can have its own name resolve to 127.0.0.1 after it was loaded (DNS rebinding): the browser then
lets its scripts read a local server's answers. The browser still sends the page's name as the Host.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d*)?")


@dataclass(frozen=True)
class Hosts:
    """The hosts that are answered: loopback ones and some names, or any."""

    names: frozenset[str]
    any_host: bool

    @classmethod
    def of(cls, listening: str, allowed: Iterable[str] = ()) -> Hosts:
        """Return what an address answers to: on loopback loopback's names, elsewhere any name.

        Args:
            listening: The address that the server listens on.
            allowed: More names. On an address that is not loopback, they limit it to them and loopback's.
        """
        names = frozenset(name.lower().rstrip(".") for name in allowed)
        return cls(names, any_host=not names and not _is_loopback(listening))

    def answers(self, header: str) -> bool:
        """Whether requests with this Host header are answered, whatever their port."""
        if self.any_host:
            return True
        found = _HOST.fullmatch(header.strip())
        if not found:
            return False
        host = (found["six"] or found["name"] or "").lower().rstrip(".")
        return host in self.names or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
